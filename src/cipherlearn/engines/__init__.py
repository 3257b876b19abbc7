"""Compilers from an integer program to a homomorphic circuit, one file each, and kernels.

``kernels`` evaluates programs on ciphertexts without a compiler. No other folder imports an FHE
library. :func:`load_engine` finds the compiler that is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any, Protocol

from cipherlearn._exceptions import CompilationError, EngineNotFoundError
from cipherlearn.engines._options import CompileOptions
from cipherlearn.program._program import IntegerProgram
from cipherlearn.program._values import IntArray

__all__ = [
    "Client",
    "Engine",
    "EngineCircuit",
    "Server",
    "compilation_error",
    "engine_name",
    "load_engine",
]

# By preference. Both install ``concrete.compiler``, so an environment works with one of them.
_MODULES = {"concrete-python": "concrete_python.compiler", "concrete-numpy": "concrete_numpy"}


class Engine(Protocol):
    """Functions that the module of every engine has."""

    def compile_program(self, program: IntegerProgram, options: CompileOptions) -> EngineCircuit:
        """Compile a program for a fixed number of rows per call."""

    def table_bits(self, program: IntegerProgram) -> tuple[int, ...]:
        """Return the bits that the tables of each hidden layer see."""


class Client(Protocol):
    """Keys, encryption and decryption, a batch of rows at a time."""

    def generate_keys(self) -> None:
        """Make fresh secret and evaluation keys."""

    def evaluation_keys(self) -> bytes:
        """Serialize the evaluation keys, which hold no secret."""

    def encrypt(self, inputs: Sequence[IntArray]) -> list[Any]:
        """Encrypt the codes of each input, of shape (batch_size, n_integers)."""

    def decrypt(self, results: Sequence[Any]) -> IntArray:
        """Decrypt to the outputs' sums, which start at 0, of shape (batch_size, n_sums)."""


class Server(Protocol):
    """Evaluation of encrypted batches, without a way to a secret key.

    Ciphertexts of a batch come one for each input, its results one for each output.

    Attributes
    ----------
    runtime : {"kernels", "compiled"}
        Whether Concrete's kernels or a compiled circuit evaluate.
    batches_together : int
        Number of batches that :meth:`run` evaluates together most efficiently.
    key_bytes : int
        Bytes of memory that a client's loaded evaluation keys take.
    """

    runtime: str
    batches_together: int
    key_bytes: int

    def load_keys(self, evaluation_keys: bytes) -> Any:
        """Load serialized evaluation keys, for :meth:`run`."""

    def run(self, batches: Sequence[Sequence[Any]], keys: Any) -> list[list[Any]]:
        """Evaluate encrypted batches, and return the results of each."""


class EngineCircuit(Protocol):
    """A compiled program, in its unsigned form."""

    engine: str
    client: Client
    server: Server

    def simulate(self, inputs: Sequence[IntArray]) -> IntArray:
        """Run the circuit's noise model on clear codes."""

    def files(self) -> dict[str, bytes]:
        """Return what a client ("specs.json") and a compiled server ("circuit.mlir") need."""

    @property
    def n_bootstraps(self) -> int:
        """Bootstraps of one call, among them those of exact rounding."""

    @property
    def key_bytes(self) -> int:
        """Bytes of the evaluation keys in memory, known before there are any."""

    @property
    def p_error(self) -> float:
        """Error probability of one bootstrap, as the optimizer achieved it."""


def engine_name() -> str:
    """Return the name of the engine in this environment.

    Raises
    ------
    EngineNotFoundError
        If no engine is installed.

    Examples
    --------
    >>> from cipherlearn.engines import engine_name
    >>> engine_name() in ("concrete-python", "concrete-numpy")
    True
    """
    for name in _MODULES:
        try:
            distribution(name)
        except PackageNotFoundError:
            continue
        return name
    raise EngineNotFoundError(
        f"Encrypted prediction needs an FHE compiler, one of {', '.join(_MODULES)}. Found none in "
        "this environment. Install one with: python -m pip install 'concrete-python>=2.11,<3'"
    )


def load_engine() -> Engine:
    """Import the engine of this environment.

    Returns
    -------
    module
        It has the functions of :class:`Engine`.

    Raises
    ------
    EngineNotFoundError
        If no engine is installed.

    Examples
    --------
    >>> from cipherlearn.engines import load_engine
    >>> callable(load_engine().compile_program)
    True
    """
    engine: Engine = import_module(f"{__name__}.{_MODULES[engine_name()]}")
    return engine


def compilation_error(
    program: IntegerProgram, options: CompileOptions, reason: object
) -> CompilationError:
    """Make the error for a program without fitting cryptographic parameters."""
    bits = [layer.n_accum_bits for layer in program.layers]
    given = ", ".join(f"{k}={v:.3g}" for k, v in options.error_probability.items() if v is not None)
    return CompilationError(
        f"No cryptographic parameters fit accumulators of {bits} bits with {given}. "
        "Lower module__n_accum_bits, module__n_hidden_neurons_multiplier or the bit-widths, or "
        f"accept a larger error probability. The compiler says: {reason}"
    )
