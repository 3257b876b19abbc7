"""The concrete-python engine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from cipherlearn.engines import Server
from cipherlearn.engines._bindings import keep_broken_pipes_errors
from cipherlearn.engines._compilation import compilation
from cipherlearn.engines._options import CompileOptions
from cipherlearn.engines.concrete_python import ENGINE
from cipherlearn.engines.concrete_python._circuit import compile_circuit, remove_with
from cipherlearn.engines.concrete_python.client import ClientRuntime
from cipherlearn.engines.concrete_python.server import open_server
from cipherlearn.program._program import IntegerProgram
from cipherlearn.program._values import IntArray

__all__ = ["ConcretePythonCircuit", "compile_program", "table_bits"]


def compile_program(program: IntegerProgram, options: CompileOptions) -> ConcretePythonCircuit:
    """Compile a program for a fixed number of rows per call.

    Parameters
    ----------
    program : IntegerProgram
    options : CompileOptions

    Raises
    ------
    CompilationError
        If the compiler finds no cryptographic parameters.
    """
    return ConcretePythonCircuit(program, options)


def table_bits(program: IntegerProgram) -> tuple[int, ...]:
    """Return the bits of sums that rounding keeps, for each hidden layer."""
    return tuple(layer.n_table_bits for layer in program.hidden_layers)


class ConcretePythonCircuit:
    """A compiled program, with a client's side and a server's side."""

    engine = ENGINE

    def __init__(self, program: IntegerProgram, options: CompileOptions) -> None:
        self._program, self._options = program, options
        self._circuit = compile_circuit(program, options)
        self.client = ClientRuntime(self.files()["specs.json"])

    @cached_property
    def server(self) -> Server:
        """The server, made when it is first needed."""
        files = self.files()
        return open_server(
            self._program, files["specs.json"], self._options, lambda: files["circuit.mlir"]
        )

    def simulate(self, inputs: Sequence[IntArray]) -> IntArray:
        """Run the circuit's noise model on clear codes."""
        # Concrete reads arrays row by row, whatever their strides say.
        values: Any = self._simulated.simulate(*map(np.ascontiguousarray, inputs))
        keep_broken_pipes_errors()
        outputs = values if isinstance(values, tuple) else (values,)
        return np.concatenate([np.asarray(v, dtype=np.int64) for v in outputs], axis=1)

    @cached_property
    def _simulated(self) -> Any:
        """The circuit with its noise model, compiled when first needed, as it seldom is."""
        with compilation():
            self._circuit.enable_fhe_simulation()
        remove_with(self._circuit.simulator)
        return self._circuit

    def files(self) -> dict[str, bytes]:
        """Return what a client ("specs.json") and a compiled server ("circuit.mlir") need."""
        specs = self._circuit.client.specs.program_info.serialize()
        return {"specs.json": specs, "circuit.mlir": self._circuit.mlir.encode()}

    @property
    def n_bootstraps(self) -> int:
        """Bootstraps of one call, among them those of exact rounding."""
        return int(self._circuit.programmable_bootstrap_count)

    @property
    def key_bytes(self) -> int:
        """Bytes of the evaluation keys in memory, known before there are any."""
        return int(self._circuit.size_of_bootstrap_keys + self._circuit.size_of_keyswitch_keys)

    @property
    def p_error(self) -> float:
        """Error probability of one bootstrap."""
        # Circuit.p_error is not to be trusted in concrete-python 2.11; the server's is.
        return float(self._circuit.server.p_error)
