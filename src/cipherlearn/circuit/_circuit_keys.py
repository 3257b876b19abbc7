"""Keys of a circuit, in the forms that evaluation needs."""

from __future__ import annotations

import threading
import time
from typing import Any

from cipherlearn._progress import stage
from cipherlearn.circuit._joblib import Evaluation
from cipherlearn.engines import EngineCircuit
from cipherlearn.engines._options import CompileOptions
from cipherlearn.program._program import IntegerProgram

__all__ = ["CircuitKeys"]

# Seconds that key generation took in this process, by key size. Equal keys take as long again.
_seconds: dict[int, float] = {}


class CircuitKeys:
    """Fresh keys of a compiled circuit. The circuit's client holds the secret ones.

    Parameters
    ----------
    compiled : EngineCircuit
    verbose : bool or int
        Whether to print how long key generation takes.
    """

    def __init__(self, compiled: EngineCircuit, verbose: bool | int) -> None:
        self._compiled = compiled
        start = time.perf_counter()
        with stage("Generating keys", verbose, _seconds.get(compiled.key_bytes)):
            compiled.client.generate_keys()
        _seconds[compiled.key_bytes] = time.perf_counter() - start
        # Threads that share a circuit must not each make these.
        self._lock = threading.Lock()
        self._ready: tuple[Any] | None = None
        self._for_workers: Evaluation | None = None

    def serialize(self) -> bytes:
        """Serialize the evaluation keys, which hold no secret."""
        return self._compiled.client.evaluation_keys()

    def ready(self) -> Any:
        """Return the evaluation keys as loaded by the circuit's server, at the first call."""
        with self._lock:
            if self._ready is None:
                self._ready = (self._compiled.server.load_keys(self.serialize()),)
            return self._ready[0]

    def for_workers(self, program: IntegerProgram, options: CompileOptions) -> Evaluation:
        """Return the data that joblib's workers need, made at the first call."""
        with self._lock:
            if self._for_workers is None:
                files = self._compiled.files()
                self._for_workers = Evaluation(program, files, options, self.serialize())
            return self._for_workers
