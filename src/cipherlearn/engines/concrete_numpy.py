"""The Concrete-Numpy engine."""

# It excludes concrete-python.
# engine: concrete-numpy

from __future__ import annotations

import re
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cipherlearn._exceptions import CompilationError, UnsupportedByEngineError
from cipherlearn.engines import compilation_error
from cipherlearn.engines._compilation import compilation
from cipherlearn.engines._options import CompileOptions
from cipherlearn.engines._tracing import add_up, name_inputs, prepare_thread
from cipherlearn.program._layer import IntegerLayer
from cipherlearn.program._nodes import Lookup, Sum
from cipherlearn.program._passes import component_of_values, components, unrounded, unsigned
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
    if options.runtime == "kernels":
        raise UnsupportedByEngineError(
            "Concrete's kernels come with concrete-python. The engine concrete-numpy evaluates "
            'compiled circuits only. Got runtime="kernels". Leave it at its default.'
        )
    prepare_thread(tag_context)
    # Parts with no value in common get widths of their own.
    parts = [_compile_part(*part, options) for part in components(_form(program))]
    return ConcreteNumpyCircuit(parts, options.batch_size * program.n_bootstraps)


def _form(program: IntegerProgram) -> IntegerProgram:
    return unsigned(unrounded(program))


@dataclass(frozen=True)
class _Part:
    """A circuit, and which inputs and outputs of the program are its own."""

    circuit: cnp.Circuit
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    output_sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        # Its folder would otherwise be removed with a warning.
        weakref.finalize(self, self.circuit.cleanup)

    def split(self, sums: Any) -> dict[int, IntArray]:
        """Give the sums of each output."""
        ends = np.cumsum(self.output_sizes)[:-1]
        parts = np.split(np.asarray(sums, dtype=np.int64), ends, axis=1)
        return dict(zip(self.outputs, parts, strict=True))


def _compile_part(
    program: IntegerProgram,
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    options: CompileOptions,
) -> _Part:
    n_bits = _common_width(program)
    configuration = cnp.Configuration(
        **options.error_probability,
        # Compiled further once the widths are declared.
        virtual=True,
        # The default writes the model's weights into the working directory.
        dump_artifacts_on_unexpected_failures=False,
    )
    evaluate = _evaluator(program, n_bits)
    encrypted = name_inputs(evaluate, len(program.inputs))
    zeros = tuple(
        np.zeros((options.batch_size, len(columns)), dtype=np.int64) for columns in program.inputs
    )
    sample = zeros if len(zeros) > 1 else zeros[0]
    try:
        with compilation():
            circuit = cnp.Compiler(evaluate, encrypted).compile([sample], configuration)
            _declare_widths(circuit.graph, n_bits)
            circuit.enable_fhe()
    except RuntimeError as error:
        raise compilation_error(program, options, error) from error
    sizes = tuple(len(layer.weights) for layer in program.output_layers)
    part = _Part(circuit, inputs, outputs, sizes)
    _check_widths(circuit.mlir, n_bits)
    return part


def table_bits(program: IntegerProgram) -> tuple[int, ...]:
    """Bits that the tables of each hidden layer see: those of the widest tensor."""
    form = _form(program)
    number = component_of_values(form)
    widths = (_common_width(part) for part, _, _ in components(form))
    width_of = dict(zip(sorted(set(number)), widths, strict=True))
    return tuple(width_of[number[node.reads]] for node in form.lookups)


class ConcreteNumpyCircuit:
    """Compiled circuits and, once generated, their keys: client and server of one process."""

    engine = "concrete-numpy"
    runtime = "compiled"
    batches_together = 1

    def __init__(self, parts: Sequence[_Part], n_bootstraps: int) -> None:
        self.client = self.server = self
        self._parts = parts
        self._n_bootstraps = n_bootstraps

    def generate_keys(self) -> None:
        """Make fresh secret and evaluation keys."""
        for part in self._parts:
            part.circuit.keygen(force=True)

    def encrypt(self, inputs: Sequence[IntArray]) -> list[Any]:
        """Encrypt the codes of each input, of shape (batch_size, n_integers)."""
        return [part.circuit.encrypt(*(inputs[i] for i in part.inputs)) for part in self._parts]

    def load_keys(self, evaluation_keys: bytes) -> None:
        """Do nothing: the circuits have their keys."""

    def run(self, batches: Sequence[Sequence[Any]], keys: Any) -> list[list[Any]]:
        """Evaluate each circuit on its ciphertexts, batch by batch."""
        return [
            [p.circuit.run(c) for p, c in zip(self._parts, batch, strict=True)] for batch in batches
        ]

    def decrypt(self, results: Sequence[Any]) -> IntArray:
        """Decrypt to the outputs' sums, which start at 0, side by side."""
        return self._side_by_side(
            p.circuit.decrypt(r) for p, r in zip(self._parts, results, strict=True)
        )

    def simulate(self, inputs: Sequence[IntArray]) -> IntArray:
        """Run the circuits' noise model on clear codes."""
        return self._side_by_side(
            part.circuit.simulate(*(inputs[i] for i in part.inputs)) for part in self._parts
        )

    def _side_by_side(self, values: Iterable[Any]) -> IntArray:
        sums: dict[int, IntArray] = {}
        for part, value in zip(self._parts, values, strict=True):
            sums.update(part.split(value))
        return np.concatenate([sums[i] for i in range(len(sums))], axis=1)

    def evaluation_keys(self) -> bytes:
        """Serialize the evaluation keys, which hold no secret."""
        return b"".join(p.circuit.client.evaluation_keys.serialize() for p in self._parts)

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
        return sum(
            part.circuit.size_of_bootstrap_keys + part.circuit.size_of_keyswitch_keys
            for part in self._parts
        )

    @property
    def p_error(self) -> float:
        """Error probability of one bootstrap."""
        return max(float(part.circuit.p_error) for part in self._parts)


def _evaluator(program: IntegerProgram, n_bits: int) -> Callable[..., Any]:
    """Write an unsigned program's nodes in the compiler's tracing language."""
    tables = {
        node.reads: _lookup_table(program.layer_of(node.reads), n_bits) for node in program.lookups
    }

    def evaluate(**inputs: Any) -> Any:
        values = list(inputs.values())
        for node in program.nodes:
            if isinstance(node, Lookup):
                values.append(tables[node.reads][values[node.reads]])
                continue
            values.append(add_up(node, values))
        outputs = tuple(values[v] for v in program.outputs)
        # A circuit of this compiler has one output.
        return np.concatenate(outputs, axis=1) if len(outputs) > 1 else outputs[0]

    return evaluate


def _lookup_table(layer: IntegerLayer, n_bits: int) -> cnp.LookupTable:
    """One table per neuron, of an entry for every integer of ``n_bits``."""
    # No input leads past the last reachable entry, only a simulated error.
    rows = layer.cell_tables
    rows = np.pad(rows, ((0, 0), (0, 2**n_bits - rows.shape[1])), mode="edge")
    return cnp.LookupTable(np.array([cnp.LookupTable(row.tolist()) for row in rows]))


def _common_width(program: IntegerProgram) -> int:
    """Bits that hold every tensor, for every possible input."""
    widths = [_n_bits(int(high.max())) for _, high in program.ranges]
    for node in program.nodes:
        if isinstance(node, Sum):
            assert node.constant is not None
            widths += [_constant_width(node.weights), _constant_width(-node.constant)]
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
