"""What concrete-python's compiled bindings offer a client and a server.

Neither needs concrete's tracing front end, which imports torch.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn._exceptions import CompilationError
from cipherlearn.engines._compilation import compilation
from cipherlearn.engines.concrete_python._bindings import compiler, keep_broken_pipes_errors

__all__ = [
    "ENGINE",
    "ClientRuntime",
    "OtherParametersError",
    "ServerRuntime",
    "compile_library",
    "engine_version",
]

ENGINE = "concrete-python"


def engine_version() -> str:
    """Return the version of the installed engine."""
    return version(ENGINE)


class ClientRuntime:
    """Keys, encryption and decryption.

    Parameters
    ----------
    specs : bytes
        The circuit's cryptographic parameters and shapes, as JSON.
    """

    def __init__(self, specs: bytes) -> None:
        self._info = compiler.ProgramInfo.deserialize(specs)
        self._function = json.loads(specs)["circuits"][0]["name"]
        self._keyset: Any = None

    def generate_keys(self) -> None:
        """Make fresh secret and evaluation keys, from the system's randomness."""
        # Seeds of 0 stand for none.
        self._keyset = compiler.Keyset(self._info, None, 0, 0, 0, 0, None)

    def secret_keys(self) -> bytes:
        """Serialize all keys, the secret ones included."""
        return self._keyset.serialize()

    def load_keys(self, keys: bytes) -> None:
        """Use keys that :meth:`secret_keys` gave."""
        self._keyset = compiler.Keyset.deserialize(keys)

    def evaluation_keys(self) -> bytes:
        """Serialize the evaluation keys, which hold no secret."""
        return self._keyset.get_server_keys().serialize()

    def encrypt(self, codes: NDArray[np.int64]) -> bytes:
        """Encrypt codes of shape (batch_size, n_codes)."""
        # Concrete reads arrays row by row, whatever their strides say.
        value = compiler.Value(np.ascontiguousarray(codes, dtype=np.int64))
        return self._circuit().prepare_input(value, 0).serialize()

    def decrypt(self, result: bytes) -> NDArray[np.int64]:
        """Decrypt a result of shape (batch_size, n_outputs)."""
        value = compiler.TransportValue.deserialize(result)
        return np.asarray(self._circuit().process_output(value, 0).to_py_val(), dtype=np.int64)

    def _circuit(self) -> Any:
        program = compiler.ClientProgram.create_encrypted(self._info, self._keyset)
        return program.get_client_circuit(self._function)


class OtherParametersError(CompilationError):
    """The compiler chose other cryptographic parameters than keys are for."""


def compile_library(
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
    # 1 stands for no bound.
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


class ServerRuntime:
    """Evaluation with the keys of any client.

    Parameters
    ----------
    directory : Path
        Where :func:`compile_library` compiled the circuit.
    """

    def __init__(self, directory: Path) -> None:
        self._library = compiler.Library(str(directory))
        specs = json.loads(self._library.get_program_info().serialize())
        self._function = specs["circuits"][0]["name"]

    def load_keys(self, evaluation_keys: bytes) -> Any:
        """Read evaluation keys, for :meth:`run`."""
        return compiler.ServerKeyset.deserialize(evaluation_keys)

    def run(self, ciphertext: bytes, keys: Any) -> bytes:
        """Evaluate the circuit on a ciphertext."""
        value = compiler.TransportValue.deserialize(ciphertext)
        # A server circuit holds the arguments of its call, so that threads must not share one.
        program = compiler.ServerProgram(self._library, False)
        (result,) = program.get_server_circuit(self._function).call([value], keys)
        keep_broken_pipes_errors()
        return result.serialize()
