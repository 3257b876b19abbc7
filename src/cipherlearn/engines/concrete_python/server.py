"""A server's side: evaluation with the keys of any client. It has no way to a secret key.

It uses the compiled bindings alone. Concrete's tracing front end imports torch.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cipherlearn._exceptions import CompilationError
from cipherlearn.engines._bindings import compiler, keep_broken_pipes_errors
from cipherlearn.engines._compilation import compilation
from cipherlearn.engines.concrete_python import ENGINE, engine_version

__all__ = ["OtherParametersError", "ServerRuntime", "compile_library", "compiled_runtime"]


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

    def run(self, ciphertexts: Sequence[bytes], keys: Any) -> list[bytes]:
        """Evaluate the circuit on a ciphertext of each input, to one of each output."""
        values = [compiler.TransportValue.deserialize(ciphertext) for ciphertext in ciphertexts]
        # A server circuit holds the arguments of its call, so that threads must not share one.
        program = compiler.ServerProgram(self._library, False)
        results = program.get_server_circuit(self._function).call(values, keys)
        keep_broken_pipes_errors()
        return [result.serialize() for result in results]


def compiled_runtime(compile_into: Callable[[Path], object]) -> ServerRuntime:
    """Compile a circuit, and keep its folder for as long as the runtime lives.

    Parameters
    ----------
    compile_into : callable
        :func:`compile_library` for an empty folder.
    """
    library = Path(tempfile.mkdtemp(prefix="cipherlearn-"))
    try:
        compile_into(library)
        runtime = ServerRuntime(library)
    except BaseException:
        shutil.rmtree(library, ignore_errors=True)
        raise
    weakref.finalize(runtime, shutil.rmtree, library, ignore_errors=True)
    return runtime
