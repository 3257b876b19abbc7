"""Encrypted batches evaluated by joblib's workers, on this machine or on a cluster.

Workers get ciphertexts and evaluation keys. What can decrypt stays with the caller.
"""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from joblib.parallel import LokyBackend, MultiprocessingBackend, get_active_backend
from numpy.typing import NDArray

from cipherlearn._folders import make_folder
from cipherlearn.engines._options import CompileOptions
from cipherlearn.program._program import IntegerProgram

__all__ = ["Evaluation", "evaluate_batches"]

# Attempts in a row that end early and bring no result, before the last error is raised.
_MAX_FAILURES = 3

# Batches of a round, for backends that return all results together.
_CALLS_PER_JOB = 16

# Evaluations that a worker keeps, each with a client's keys.
_MAX_KEPT = 2


class Evaluation:
    """Program, circuit and evaluation keys, which a worker needs to evaluate batches.

    Parameters
    ----------
    program : IntegerProgram
    files : dict of bytes
        "specs.json" and "circuit.mlir" of its circuit.
    options : CompileOptions
    evaluation_keys : bytes
        Serialized keys, which hold no secret.

    Attributes
    ----------
    data : ndarray of uint8
        All of them, serialized as an array, which joblib's backends send to a worker only once.
    id : str
        Digest of ``data``.
    is_out : bool
        Whether workers were sent the data before, so that they are asked first.
    """

    def __init__(
        self,
        program: IntegerProgram,
        files: dict[str, bytes],
        options: CompileOptions,
        evaluation_keys: bytes,
    ) -> None:
        serialized = pickle.dumps((program, files, options, evaluation_keys))
        self.data = np.frombuffer(serialized, dtype=np.uint8)
        self.id = hashlib.sha256(serialized).hexdigest()
        self.is_out = False


def evaluate_batches(
    encrypt: Callable[[int], list[bytes]],
    n_batches: int,
    evaluation: Evaluation,
    n_jobs: int | None,
) -> Iterator[tuple[int, list[bytes]]]:
    """Evaluate encrypted batches, and yield each result with its number as soon as it arrives.

    Batches of a worker that dies are encrypted again for another.

    Parameters
    ----------
    encrypt : callable
        Function from the number of a batch to its serialized ciphertexts. It is called from
        several threads.
    n_batches : int
    evaluation : Evaluation
    n_jobs : int or None
        Number of workers, as in joblib.

    Yields
    ------
    number : int
    results : list of bytes
        The batch's serialized results, one for each output.

    Raises
    ------
    ValueError
        If joblib would fork this process.
    """
    backend, _ = get_active_backend()
    if type(backend) is MultiprocessingBackend:
        raise ValueError(
            "Encrypted rows need workers that are not forked, since the engine's threads do not "
            'survive a fork. Got joblib\'s backend "multiprocessing". Use "loky".'
        )
    in_order_of_arrival = backend.supports_return_generator
    return_as = "generator_unordered" if in_order_of_arrival else "list"
    data = None if evaluation.is_out else evaluation.data
    waiting, n_failures = set(range(n_batches)), 0
    while waiting:
        n_waiting = len(waiting)
        numbers = sorted(waiting)
        if not in_order_of_arrival:
            # Rounds limit what a failure loses, and how long progress shows nothing.
            numbers = numbers[: _CALLS_PER_JOB * effective_n_jobs(n_jobs)]
        tasks = _Tasks(encrypt, numbers, evaluation.id, data)
        # loky waits for ever for the rest of a result that a worker was killed in the middle of.
        # Short messages are written whole or not at all, so results go through files.
        if isinstance(backend, LokyBackend):
            tasks.folder = make_folder(tasks)
        data = evaluation.data
        try:
            # joblib would make batches of batches as large as its shortest calls suggest.
            parallel = Parallel(n_jobs, batch_size=1, return_as=return_as)
            for number, result in parallel(tasks):
                if isinstance(result, Exception):
                    tasks.error = result
                    break
                if result is None:
                    # A worker lacks the circuit and keys. Those that follow may, too.
                    tasks.data = evaluation.data
                elif number in waiting:
                    if isinstance(result, Path):
                        result = _read(result)
                    waiting.remove(number)
                    yield number, result
        except Exception:
            # Whatever joblib's backends raise when they lose a worker, or what was sent to it.
            n_failures = n_failures + 1 if len(waiting) == n_waiting else 0
            if n_failures == _MAX_FAILURES and tasks.error is None:
                raise
        if tasks.error is not None:
            raise tasks.error
        evaluation.is_out = True


class _Tasks:
    """Calls for joblib, each encrypted when a worker is soon to take it.

    joblib iterates in a thread of its own, where an error would go unnoticed.
    """

    def __init__(
        self,
        encrypt: Callable[[int], list[bytes]],
        numbers: list[int],
        evaluation_id: str,
        data: NDArray[np.uint8] | None,
    ) -> None:
        self._encrypt = encrypt
        self._numbers = numbers
        self._id = evaluation_id
        self.data = data
        self.folder: str | None = None
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[Any]:
        try:
            for number in self._numbers:
                call = number, self._encrypt(number), self._id, self.data, self.folder
                yield delayed(_evaluate)(*call)
        except Exception as error:
            self.error = error


def _read(path: Path) -> list[bytes]:
    results: list[bytes] = pickle.loads(path.read_bytes())
    path.unlink()
    return results


# ---------------------------------------------------------------------- in a worker


class _Evaluator:
    """A compiled circuit with a client's keys."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        from cipherlearn.engines.concrete_python.server import open_server

        program, files, options, evaluation_keys = pickle.loads(data.data)
        specs, mlir = files["specs.json"], files["circuit.mlir"]
        self._server = open_server(program, specs, options, lambda: mlir)
        self._keys = self._server.load_keys(evaluation_keys)

    def run(self, ciphertexts: list[bytes]) -> list[bytes]:
        return self._server.run([ciphertexts], self._keys)[0]


_kept: OrderedDict[str, _Evaluator] = OrderedDict()
_lock = threading.Lock()


def _evaluate(
    number: int,
    ciphertexts: list[bytes],
    evaluation_id: str,
    data: NDArray[np.uint8] | None,
    folder: str | None,
) -> tuple[int, list[bytes] | Path | Exception | None]:
    """Evaluate one batch.

    The result is a file if there is a folder for it, and ``None`` if this worker lacks the circuit
    and keys.
    """
    # A circuit takes the threads of this process, so that its calls need none of their own.
    with _lock:
        if evaluation_id not in _kept and data is None:
            return number, None
        try:
            if evaluation_id not in _kept:
                assert data is not None
                _kept[evaluation_id] = _Evaluator(data)
            _kept.move_to_end(evaluation_id)
            while len(_kept) > _MAX_KEPT:
                _kept.popitem(last=False)
            results = _kept[evaluation_id].run(ciphertexts)
            if folder is None:
                return number, results
            path = Path(folder, str(number))
            path.write_bytes(pickle.dumps(results))
            return number, path
        except Exception as error:
            return number, error
