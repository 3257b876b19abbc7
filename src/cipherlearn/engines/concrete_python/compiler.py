"""The concrete-python engine."""

from __future__ import annotations

from typing import Any

import numpy as np

from cipherlearn.engines import compilation_error
from cipherlearn.engines._bindings import keep_broken_pipes_errors  # isort: split

from concrete import fhe
from concrete.fhe.extensions.tag import tag_context

from cipherlearn.engines._compilation import compilation
from cipherlearn.engines._options import CompileOptions
from cipherlearn.program._layer import IntegerLayer
from cipherlearn.program._program import IntegerProgram
from cipherlearn.program._values import IntArray

__all__ = ["ConcretePythonCircuit", "compile_program", "table_bits"]

# Beyond any precision.
_NEVER = 64


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
    if not hasattr(tag_context, "stack"):
        # Concrete initializes this thread-local in the importing thread only.
        tag_context.stack = []
    configuration = fhe.Configuration(
        **options.error_probability,
        compress_evaluation_keys=True,
        compress_input_ciphertexts=True,
        fhe_simulation=True,
        # Sums are proven to round to no more than the kept bits hold.
        approximate_rounding_config=fhe.ApproximateRoundingConfig(
            logical_clipping=False, approximate_clipping_start_precision=_NEVER
        ),
        # The default writes the model's weights into the working directory.
        dump_artifacts_on_unexpected_failures=False,
    )
    evaluate = _evaluator(program, fhe.Exactness(options.rounding))
    corners = [np.repeat(corner, options.batch_size, axis=0) for corner in _corners(program)]
    try:
        with compilation():
            circuit = fhe.Compiler(evaluate, {"codes": "encrypted"}).compile(corners, configuration)
    except RuntimeError as error:
        raise compilation_error(program, options, error) from error
    return ConcretePythonCircuit(circuit, program.layers[-1].low)


def table_bits(program: IntegerProgram) -> tuple[int, ...]:
    """Bits that the tables of each hidden layer see: those that rounding keeps."""
    return tuple(layer.n_table_bits for layer in program.layers[:-1])


class ConcretePythonCircuit:
    """A compiled circuit and, once generated, its keys."""

    engine = "concrete-python"

    def __init__(self, circuit: fhe.Circuit, output_low: IntArray) -> None:
        self._circuit = circuit
        self._output_low = output_low

    def generate_keys(self) -> None:
        """Make fresh secret and evaluation keys."""
        self._circuit.keygen(force=True)

    def encrypt(self, codes: IntArray) -> Any:
        """Encrypt codes of shape (batch_size, n_codes)."""
        return self._circuit.encrypt(_by_rows(codes))

    def run(self, ciphertext: Any) -> Any:
        """Evaluate the network on a ciphertext."""
        result = self._circuit.run(ciphertext)
        keep_broken_pipes_errors()
        return result

    def decrypt(self, ciphertext: Any) -> IntArray:
        """Decrypt to the accumulators."""
        return np.asarray(self._circuit.decrypt(ciphertext), dtype=np.int64) + self._output_low

    def simulate(self, codes: IntArray) -> IntArray:
        """Run the circuit's noise model on clear codes."""
        simulated = self._circuit.simulate(_by_rows(codes))
        return np.asarray(simulated, dtype=np.int64) + self._output_low

    def evaluation_keys(self) -> bytes:
        """Serialize the evaluation keys, which hold no secret."""
        return self._circuit.client.evaluation_keys.serialize()

    def serialize(self, ciphertext: Any) -> bytes:
        """Serialize a ciphertext."""
        return ciphertext.serialize()

    def deserialize(self, result: bytes) -> Any:
        """Read an encrypted result."""
        return fhe.Value.deserialize(result)

    def files(self) -> dict[str, bytes]:
        """Return what a client ("specs.json") and a server ("circuit.mlir") compute from."""
        specs = self._circuit.client.specs.program_info.serialize()
        return {"specs.json": specs, "circuit.mlir": self._circuit.mlir.encode()}

    @property
    def n_bootstraps(self) -> int:
        """Bootstraps of one call, among them those of exact rounding."""
        return int(self._circuit.programmable_bootstrap_count)

    @property
    def key_bytes(self) -> int:
        """Bytes of the evaluation keys in memory, known before there are any."""
        return self._circuit.size_of_bootstrap_keys + self._circuit.size_of_keyswitch_keys

    @property
    def p_error(self) -> float:
        """Error probability of one bootstrap."""
        # Circuit.p_error is not to be trusted in concrete-python 2.11; the server's is.
        return float(self._circuit.server.p_error)


def _by_rows(codes: IntArray) -> IntArray:
    """Lay codes out row by row, as Concrete reads them whatever their strides say."""
    return np.ascontiguousarray(codes)


def _evaluator(program: IntegerProgram, exactness: fhe.Exactness):
    """Write the program's layers in Concrete's tracing language."""
    *hidden, last = program.layers
    tables = [_lookup_table(layer) for layer in hidden]

    def evaluate(codes):
        for layer, table in zip(hidden, tables, strict=True):
            sums = _accumulate(layer, codes)
            if layer.lsbs_to_remove:
                sums = fhe.round_bit_pattern(
                    sums, layer.lsbs_to_remove, overflow_protection=False, exactness=exactness
                )
            codes = fhe.hint(table[sums], bit_width=_n_bits(int(layer.tables.max())))
        return _accumulate(last, codes)

    return evaluate


def _accumulate(layer: IntegerLayer, codes):
    """Sum, moved by a clear constant to round to 0 at least, with its proven width declared."""
    origin = layer.cell(layer.low) << layer.lsbs_to_remove
    return fhe.hint(
        codes @ layer.weights.T - origin, bit_width=layer.n_table_bits + layer.lsbs_to_remove
    )


def _lookup_table(layer: IntegerLayer) -> fhe.LookupTable:
    """One table per neuron, of a common power of two of entries."""
    assert layer.tables is not None
    origin, lsbs = layer.cell(layer.low), layer.lsbs_to_remove
    rounded = (origin[:, None] + np.arange(2**layer.n_table_bits)) << lsbs
    # The first and last multiples may lie just beyond reach. Others there are for no input.
    reached = rounded.clip(layer.low[:, None], layer.high[:, None])
    rows = np.take_along_axis(layer.tables, reached - layer.low[:, None], axis=1)
    rows = np.repeat(rows, 2**lsbs, axis=1)
    return fhe.LookupTable(np.array([fhe.LookupTable(row.tolist()) for row in rows]))


def _corners(program: IntegerProgram) -> list[IntArray]:
    """List inputs that drive each first-layer accumulator to both ends of its range.

    The compiler measures ranges on them. Deeper layers have theirs from the hints.
    """
    first = program.layers[0]
    ends = [first.input_low, first.input_high]
    for weights in first.weights:
        ends.append(np.where(weights > 0, first.input_high, first.input_low))
        ends.append(np.where(weights < 0, first.input_high, first.input_low))
    return [corner[None, :] for corner in ends]


def _n_bits(largest: int) -> int:
    return max(1, largest.bit_length())
