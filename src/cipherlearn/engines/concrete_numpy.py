"""The Concrete-Numpy engine."""

# It excludes concrete-python.
# engine: concrete-numpy

from __future__ import annotations

import re
import warnings
import weakref
from typing import Any

import numpy as np

from cipherlearn._exceptions import CompilationError, UnsupportedByEngineError
from cipherlearn.engines import compilation_error
from cipherlearn.engines._compilation import compilation
from cipherlearn.engines._options import CompileOptions
from cipherlearn.program._layer import IntegerLayer
from cipherlearn.program._program import IntegerProgram
from cipherlearn.program._values import IntArray

with warnings.catch_warnings():
    # concrete declares its namespace through pkg_resources, which warns on every import.
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    from concrete import numpy as cnp
    from concrete.numpy.dtypes import Integer, UnsignedInteger
    from concrete.numpy.extensions.tag import tag_context

__all__ = ["ConcreteNumpyCircuit", "compile_program", "table_bits"]

_ONLY_HERE = (
    "The engine concrete-numpy predicts in this process only, without a server and with one job. "
    "Save the program with save_program, and compile it where concrete-python is installed."
)


def compile_program(program: IntegerProgram, options: CompileOptions) -> ConcreteNumpyCircuit:
    """Compile a program for a fixed number of rows per call.

    Every tensor of a circuit has the same width here, that of the widest. Tables see whole
    accumulators: this compiler has no rounding on ciphertexts, and a table of all bits gives
    the same result as one of the rounded ones.

    Parameters
    ----------
    program : IntegerProgram
    options : CompileOptions

    Raises
    ------
    CompilationError
        If the compiler finds no cryptographic parameters.
    UnsupportedByEngineError
        If the rounding is "approximate".
    """
    if options.rounding != "exact":
        raise UnsupportedByEngineError(
            'The engine concrete-numpy rounds with rounding="exact" only. '
            f"Got {options.rounding!r}. Leave it at its default, or install concrete-python."
        )
    if not hasattr(tag_context, "stack"):
        # Concrete initializes this thread-local in the importing thread only.
        tag_context.stack = []
    n_bits = _common_width(program)
    configuration = cnp.Configuration(
        **options.error_probability,
        # Compiled further once the widths are declared.
        virtual=True,
        # The default writes the model's weights into the working directory.
        dump_artifacts_on_unexpected_failures=False,
    )
    compiler = cnp.Compiler(_evaluator(program, n_bits), {"codes": "encrypted"})
    sample = np.zeros((options.batch_size, program.n_codes), dtype=np.int64)
    try:
        with compilation():
            circuit = compiler.compile([sample], configuration)
            _declare_widths(circuit.graph, n_bits)
            circuit.enable_fhe()
    except RuntimeError as error:
        raise compilation_error(program, options, error) from error
    compiled = ConcreteNumpyCircuit(
        circuit, program.layers[-1].low, options.batch_size * program.n_bootstraps
    )
    _check_widths(circuit.mlir, n_bits)
    return compiled


def table_bits(program: IntegerProgram) -> tuple[int, ...]:
    """Bits that the tables of each hidden layer see: those of the widest tensor."""
    return (_common_width(program),) * (len(program.layers) - 1)


class ConcreteNumpyCircuit:
    """A compiled circuit and, once generated, its keys."""

    engine = "concrete-numpy"

    def __init__(self, circuit: cnp.Circuit, output_low: IntArray, n_bootstraps: int) -> None:
        self._circuit = circuit
        self._output_low = output_low
        self._n_bootstraps = n_bootstraps
        # Its folder would otherwise be removed with a warning.
        weakref.finalize(self, circuit.cleanup)

    def generate_keys(self) -> None:
        """Make fresh secret and evaluation keys."""
        self._circuit.keygen(force=True)

    def encrypt(self, codes: IntArray) -> Any:
        """Encrypt codes of shape (batch_size, n_codes)."""
        return self._circuit.encrypt(codes)

    def run(self, ciphertext: Any) -> Any:
        """Evaluate the network on a ciphertext."""
        return self._circuit.run(ciphertext)

    def decrypt(self, ciphertext: Any) -> IntArray:
        """Decrypt to the accumulators."""
        return np.asarray(self._circuit.decrypt(ciphertext), dtype=np.int64) + self._output_low

    def simulate(self, codes: IntArray) -> IntArray:
        """Run the circuit's noise model on clear codes."""
        return np.asarray(self._circuit.simulate(codes), dtype=np.int64) + self._output_low

    def evaluation_keys(self) -> bytes:
        """Serialize the evaluation keys, which hold no secret."""
        return self._circuit.client.evaluation_keys.serialize()

    def serialize(self, ciphertext: Any) -> bytes:
        """Serialize a ciphertext."""
        return ciphertext.serialize()

    def deserialize(self, result: bytes) -> Any:
        """Raise UnsupportedByEngineError: nothing comes back from elsewhere with this engine."""
        raise UnsupportedByEngineError(_ONLY_HERE)

    def files(self) -> dict[str, bytes]:
        """Raise UnsupportedByEngineError: there is no deployment with this engine."""
        raise UnsupportedByEngineError(_ONLY_HERE)

    @property
    def n_bootstraps(self) -> int:
        """Bootstraps of one call."""
        return self._n_bootstraps

    @property
    def key_bytes(self) -> int:
        """Bytes of the evaluation keys in memory, known before there are any."""
        return self._circuit.size_of_bootstrap_keys + self._circuit.size_of_keyswitch_keys

    @property
    def p_error(self) -> float:
        """Error probability of one bootstrap."""
        return float(self._circuit.p_error)


def _evaluator(program: IntegerProgram, n_bits: int):
    """Write the program's layers in the compiler's tracing language."""
    *hidden, last = program.layers
    tables = [_lookup_table(layer, n_bits) for layer in hidden]

    def evaluate(codes):
        for layer, table in zip(hidden, tables, strict=True):
            codes = table[codes @ layer.weights.T - layer.low]
        return codes @ last.weights.T - last.low

    return evaluate


def _lookup_table(layer: IntegerLayer, n_bits: int) -> cnp.LookupTable:
    """One table per neuron, of an entry for every integer of ``n_bits``."""
    assert layer.tables is not None
    # No input leads past the last reachable entry, only a simulated error.
    reached = np.minimum(np.arange(2**n_bits), (layer.high - layer.low)[:, None])
    rows = np.take_along_axis(layer.tables, reached, axis=1)
    return cnp.LookupTable(np.array([cnp.LookupTable(row.tolist()) for row in rows]))


def _common_width(program: IntegerProgram) -> int:
    """Bits that hold every tensor, for every possible input."""
    widths = [_n_bits(int(program.quantizer.largest.max()))]
    for layer in program.layers:
        widths += [layer.n_accum_bits, _constant_width(layer.weights), _constant_width(layer.low)]
        if layer.tables is not None:
            widths.append(_n_bits(max(r.high for r in layer.table_ranges)))
    return max(widths)


def _constant_width(constant: IntArray) -> int:
    """Width that the compiler asks of a circuit with a constant, which has a bit more."""
    return int(Integer.that_can_represent(constant).bit_width) - 1


def _declare_widths(graph: Any, n_bits: int) -> None:
    """Replace the ranges that the compiler measured on a sample by what is proven.

    Inputs, sums that are moved to start at 0, and table outputs are proven to be between 0 and
    ``2**n_bits - 1``. A sum before it is moved may not be. That does no harm, since no table
    sees it: it is computed modulo ``2**n_bits`` or more, and moving it brings it back.
    """
    for node in graph.graph.nodes:
        for value in (*node.inputs, node.output):
            if value.is_encrypted:
                value.dtype = UnsignedInteger(n_bits)


def _check_widths(mlir: str, n_bits: int) -> None:
    """Raise CompilationError unless all that is compiled has the bits that are proven to do."""
    compiled = {int(width) for width in re.findall(r"!FHE\.eint<(\d+)>", mlir)}
    if compiled != {n_bits}:
        raise CompilationError(
            f"Every tensor of a circuit for concrete-numpy must have {n_bits} bits. Got "
            f"{sorted(compiled)}. This engine is tested with concrete-numpy 0.11.0: install that "
            "version, or concrete-python."
        )


def _n_bits(largest: int) -> int:
    return max(1, largest.bit_length())
