"""A server's side: evaluation with the keys of any client. It has no way to a secret key.

It uses the compiled bindings alone. Concrete's tracing front end imports torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cipherlearn._exceptions import (
    CompilationError,
    EngineNotFoundError,
    MessageError,
    UnsupportedByEngineError,
)
from cipherlearn._folders import make_folder
from cipherlearn.engines import Server
from cipherlearn.engines._bindings import compiler, keep_broken_pipes_errors
from cipherlearn.engines._compilation import compilation
from cipherlearn.engines._options import CompileOptions
from cipherlearn.engines.concrete_python import ENGINE, engine_version
from cipherlearn.engines.kernels import (
    EvaluationKeys,
    Gate,
    KernelRuntime,
    Parameters,
    keys_for,
    read_keys,
    read_value,
    write_keys,
    write_value,
)
from cipherlearn.program._program import IntegerProgram

__all__ = ["CompiledServer", "KernelServer", "OtherParametersError", "open_server"]

# Rows that the kernels evaluate together. More are hardly faster.
_ROWS_TOGETHER = 16


class OtherParametersError(CompilationError):
    """The compiler chose other cryptographic parameters than those of the keys."""


def _compile_library(
    mlir: bytes,
    specs: bytes,
    directory: Path,
    p_error: float | None,
    global_p_error: float | None,
) -> None:
    """Compile a circuit into a directory, or raise OtherParametersError unless it has the specs."""
    options = compiler.CompilationOptions(compiler.Backend.CPU)
    # As concrete's front end sets them for the configuration that circuits are compiled with.
    options.set_loop_parallelize(True)
    options.set_compress_evaluation_keys(True)
    options.set_compress_input_ciphertexts(True)
    options.set_optimizer_strategy(compiler.OptimizerStrategy.DAG_MULTI)
    options.set_optimizer_multi_parameter_strategy(
        compiler.OptimizerMultiParameterStrategy.PRECISION
    )
    options.set_enable_tlu_fusing(True)
    # 1 means no bound.
    options.set_p_error(1.0 if p_error is None else p_error)
    options.set_global_p_error(1.0 if global_p_error is None else global_p_error)
    native = compiler.Compiler(
        str(directory),
        compiler.lookup_runtime_lib(),
        generate_shared_lib=True,
        generate_program_info=True,
        generate_compilation_feedback=True,
    )
    with compilation():
        chosen = native.compile(mlir.decode(), options).get_program_info().serialize()
    if json.loads(chosen) != json.loads(specs):
        raise OtherParametersError(
            f"{ENGINE} {engine_version()} chose other cryptographic parameters than those of the "
            f"circuit's keys. Install the same version of {ENGINE} wherever it is compiled."
        )


class KernelServer:
    """Evaluation on Concrete's kernels, with the keys of any client.

    Parameters
    ----------
    kernels : KernelRuntime
    batch_size : int
        Rows of a batch.
    n_threads : int or None, default=None
        Threads to compute in, as for :func:`cipherlearn.engines.kernels.count_threads`.
    """

    runtime = "kernels"

    def __init__(
        self, kernels: KernelRuntime, batch_size: int, n_threads: int | None = None
    ) -> None:
        self._kernels = kernels
        self._n_threads = n_threads
        self.batches_together = max(1, _ROWS_TOGETHER // batch_size)
        self.key_bytes = kernels.key_bytes

    def load_keys(self, evaluation_keys: bytes) -> EvaluationKeys:
        """Load serialized evaluation keys, for :meth:`run`."""
        return self._kernels.load_keys(evaluation_keys, self._n_threads)

    def run(self, batches: Sequence[Sequence[bytes]], keys: EvaluationKeys) -> list[list[bytes]]:
        """Evaluate batches together. Each has a ciphertext per input, and gives one per output."""
        read = [self._kernels.read(batch) for batch in batches]
        together = [np.concatenate(words) for words in zip(*read, strict=True)]
        results = self._kernels.run(together, keys, self._n_threads)
        ends = np.cumsum([len(words[0]) for words in read])[:-1]
        parts = zip(*(np.split(words, ends) for words in results), strict=True)
        return [self._kernels.write(part) for part in parts]


@dataclass(frozen=True)
class CompiledKeys:
    """A client's evaluation keys for a compiled circuit.

    Parameters
    ----------
    keyset : object
        Concrete's deserialized keys.
    n_bytes : int
        Length of the serialized keys.
    """

    keyset: Any
    n_bytes: int


def _rewritten(values: Sequence[bytes], gates: Sequence[Gate]) -> list[bytes]:
    """Write a value for each gate anew, or raise MessageError if it has another length."""
    words = [read_value(value) for value in values]
    shapes = [gate.shape for gate in gates]
    if [array.size for array in words] != [math.prod(shape) for shape in shapes]:
        raise MessageError(
            f"Ciphertexts of this model have the shapes {shapes}. "
            f"Got {[array.size for array in words]} words."
        )
    return [
        write_value(array.reshape(shape), gate)
        for array, shape, gate in zip(words, shapes, gates, strict=True)
    ]


class CompiledServer:
    """Evaluation by a compiled circuit, with the keys of any client.

    Parameters
    ----------
    mlir, specs : bytes
        The circuit, and its cryptographic parameters.
    error_probability : dict
        ``p_error`` and ``global_p_error`` that the circuit was compiled with.

    Raises
    ------
    OtherParametersError
        If the compiler chooses other parameters.
    """

    runtime = "compiled"
    batches_together = 1

    def __init__(
        self, mlir: bytes, specs: bytes, error_probability: dict[str, float | None]
    ) -> None:
        # The library's folder is read again in every call.
        folder = make_folder(self)
        _compile_library(mlir, specs, Path(folder), **error_probability)
        self._library = compiler.Library(folder)
        # Keys stay compressed, with seeds in place of their random parts.
        self._parameters, self._keyset = Parameters.from_specs(specs), json.loads(specs)["keyset"]
        self.key_bytes = self._parameters.sent_bytes
        self._function = json.loads(specs)["circuits"][0]["name"]

    def load_keys(self, evaluation_keys: bytes) -> CompiledKeys:
        """Load serialized evaluation keys, for :meth:`run`."""
        # Malformed structure can crash the engine, so that it gets numbers alone, written anew.
        keys = keys_for(self._parameters, *read_keys(evaluation_keys))
        serialized = write_keys(self._keyset, *keys)
        return CompiledKeys(compiler.ServerKeyset.deserialize(serialized), len(serialized))

    def run(self, batches: Sequence[Sequence[bytes]], keys: CompiledKeys) -> list[list[bytes]]:
        """Evaluate batches. Each has a ciphertext per input, and gives one per output."""
        return [self._run(batch, keys.keyset) for batch in batches]

    def _run(self, ciphertexts: Sequence[bytes], keys: Any) -> list[bytes]:
        values = [
            compiler.TransportValue.deserialize(serialized)
            for serialized in _rewritten(ciphertexts, self._parameters.inputs)
        ]
        # A server circuit holds the arguments of its call, so that threads must not share one.
        program = compiler.ServerProgram(self._library, False)
        results = program.get_server_circuit(self._function).call(values, keys)
        keep_broken_pipes_errors()
        # Serialized in the same form as the kernels' results.
        serialized = [result.serialize() for result in results]
        return _rewritten(serialized, self._parameters.outputs)


def open_server(
    program: IntegerProgram,
    specs: bytes,
    options: CompileOptions,
    mlir: Callable[[], bytes] | None = None,
    n_threads: int | None = None,
) -> Server:
    """Open a program's server: on the kernels or, where these cannot evaluate it, compiled.

    Parameters
    ----------
    program : IntegerProgram
    specs : bytes
        The cryptographic parameters of its circuit.
    options : CompileOptions
    mlir : callable, default=None
        Function that returns the compiled circuit. ``None`` compiles the program again.
    n_threads : int or None, default=None
        Threads that the kernels compute in.

    Raises
    ------
    ArtefactError
        If the parameters are damaged, or not for the program.
    OtherParametersError
        If the compiler chooses other parameters.
    UnsupportedByEngineError
        If the runtime must be the kernels, and they cannot evaluate it here.
    """
    if options.runtime != "compiled":
        try:
            kernels = KernelRuntime(program, specs, options.rounding)
            return KernelServer(kernels, options.batch_size, n_threads)
        except (EngineNotFoundError, UnsupportedByEngineError) as error:
            if options.runtime == "kernels":
                raise UnsupportedByEngineError(
                    f"Concrete's kernels cannot evaluate this program here. {error} "
                    'That is runtime="compiled", or "auto".'
                ) from error
    if mlir is None:
        # Concrete's tracing front end imports torch.
        from cipherlearn.engines.concrete_python._circuit import compile_circuit

        circuit = compile_circuit(program, options).mlir.encode()
    else:
        circuit = mlir()
    return CompiledServer(circuit, specs, options.error_probability)
