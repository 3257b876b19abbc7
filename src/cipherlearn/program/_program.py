"""The exact integer form of a trained network: immutable, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn._html import panel
from cipherlearn._words import bootstraps, count
from cipherlearn.program._decoder import OutputScaler
from cipherlearn.program._encoder import BLOCK_ROWS, InputQuantizer
from cipherlearn.program._evaluation import Traced, evaluate
from cipherlearn.program._layer import IntegerLayer
from cipherlearn.program._layer_table import layer_table
from cipherlearn.program._nodes import Lookup, Sum
from cipherlearn.program._proof import Proof, check_reads, prove
from cipherlearn.program._values import Immutable, IntArray, frozen

__all__ = ["IntegerProgram"]


@dataclass(frozen=True, eq=False)
class IntegerProgram(Immutable):
    """A network as the encrypted circuit computes it: a graph of sums and lookups.

    Its values are numbered: the inputs first, then one for each node. When it is made, the range
    of every sum is proven for every possible input.

    Parameters
    ----------
    quantizer : InputQuantizer
        Client side: features to codes.
    inputs : tuple of ndarray of shape (n_integers,), int64
        Columns of the quantizer's codes that each encrypted input holds. Each input is encrypted
        with an encoding of its own.
    nodes : tuple of Sum and Lookup
        Server side. Each node reads values with lower numbers.
    outputs : tuple of int
        Numbers of the sums that are decrypted.
    scaler : OutputScaler
        Client side: accumulators of all outputs, concatenated, to real outputs.

    Raises
    ------
    ValueError
        If nodes do not fit together, or a sum may leave its table or reach 2**53.

    Examples
    --------
    The program of a trained network, and the codes that it computes with:

    >>> import numpy as np
    >>> from cipherlearn import NeuralNetClassifier
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> clf = NeuralNetClassifier(max_epochs=10).fit(X, [0, 0, 1, 1])
    >>> codes = clf.program_.quantize(X)
    >>> codes.min(), codes.max()
    (0, 3)

    A skip connection, of a program that computes ``max(a - b, 0) + 2 * a``:

    >>> from cipherlearn import IntegerProgram
    >>> from cipherlearn.program._decoder import OutputScaler
    >>> from cipherlearn.program._nodes import Lookup, Sum
    >>> quantizer = type(clf.program_.quantizer)(2, [0, 1], [[1.0, 2.0, 3.0]] * 2)
    >>> difference = Sum((0,), [[1, -1]])
    >>> positive = Lookup(1, [[0, 0, 0, 0, 1, 2, 3]], [-3])
    >>> both = Sum((2, 0), [[1, 2, 0]])
    >>> nodes = difference, positive, both
    >>> program = IntegerProgram(quantizer, ([0, 1],), nodes, (3,), OutputScaler([1.0], [0.0]))
    >>> program([[3.0, 1.0]])
    array([[8.]], dtype=float32)
    """

    quantizer: InputQuantizer
    inputs: tuple[IntArray, ...]
    nodes: tuple[Sum | Lookup, ...]
    outputs: tuple[int, ...]
    scaler: OutputScaler

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", _frozen_columns(self.inputs, self.n_codes))
        for name in ("nodes", "outputs"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_reads(len(self.inputs), self.nodes, self.outputs)
        # Proves the ranges.
        sums = self._layer_of
        n_sums = sum(len(sums[value].weights) for value in self.outputs)
        if len(self.scaler.gain) != n_sums:
            raise ValueError(
                "The output scaler needs one gain for each integer of the outputs. "
                f"Got {len(self.scaler.gain)} for {n_sums}."
            )

    @classmethod
    def chain(
        cls, quantizer: InputQuantizer, layers: Iterable[IntegerLayer], scaler: OutputScaler
    ) -> IntegerProgram:
        """Make the program whose layers read one another, from first to last.

        Parameters
        ----------
        quantizer : InputQuantizer
        layers : sequence of IntegerLayer
            All but the last have tables.
        scaler : OutputScaler

        Raises
        ------
        ValueError
            If layers do not fit together, or assume narrower input ranges than are proven.
        """
        layers = list(layers)
        if layers[-1].tables is not None or any(layer.tables is None for layer in layers[:-1]):
            raise ValueError("Every layer but the last needs tables, and the last has none.")
        nodes: list[Sum | Lookup] = []
        for layer in layers:
            nodes.append(Sum((len(nodes),), layer.weights, layer.constant))
            if layer.tables is not None:
                nodes.append(Lookup(len(nodes), layer.tables, layer.low, layer.lsbs_to_remove))
        inputs = (np.arange(len(quantizer.feature)),)
        program = cls(quantizer, inputs, tuple(nodes), (len(nodes),), scaler)
        for layer, proven in zip(layers, program.layers, strict=True):
            layer.check_inputs(proven.input_low, proven.input_high)
        return program

    @cached_property
    def layers(self) -> tuple[IntegerLayer, ...]:
        """Every sum with its proven ranges, in order, and with the lookup that reads it."""
        return tuple(self._layer_of.values())

    @property
    def ranges(self) -> tuple[tuple[IntArray, IntArray], ...]:
        """Smallest and largest integers of each value, proven for every possible input."""
        return self._proof.ranges

    def layer_of(self, value: int) -> IntegerLayer:
        """Return the layer of a sum, by the number of its value."""
        return self._layer_of[value]

    @property
    def _layer_of(self) -> dict[int, IntegerLayer]:
        """The layer of each sum, by the number of its value."""
        return self._proof.layers

    @cached_property
    def _proof(self) -> Proof:
        largest = self.quantizer.largest
        return prove([largest[columns] for columns in self.inputs], self.nodes)

    def __repr__(self) -> str:
        codes = f"{count(self.n_codes, 'code')} of {count(self.quantizer.n_bits, 'bit')}"
        hidden = " + ".join(str(node.n_neurons) for node in self.lookups) or "no"
        return (
            f"<IntegerProgram: {count(self.n_features, 'feature')} in {codes}, "
            f"{hidden} hidden neuron{'' if hidden == '1' else 's'}, "
            f"{count(self.n_outputs, 'output')}, {self.bootstraps()}>"
        )

    def _repr_html_(self) -> str:
        return panel("Integer program", layer_table(self.layer_names, self.layers))

    @property
    def n_features(self) -> int:
        """Number of input features."""
        return self.quantizer.n_features

    @property
    def n_codes(self) -> int:
        """Number of integers that a row is encrypted as."""
        return len(self.quantizer.feature)

    @property
    def n_outputs(self) -> int:
        """Number of real outputs of a row."""
        return len(self.scaler.bias)

    @property
    def n_sums(self) -> int:
        """Number of integers that a row is decrypted to."""
        return len(self.scaler.gain)

    @property
    def lookups(self) -> list[Lookup]:
        """Nodes that take bootstraps, in order."""
        return [node for node in self.nodes if isinstance(node, Lookup)]

    @property
    def hidden_layers(self) -> list[IntegerLayer]:
        """Layers with tables, in order."""
        return [layer for layer in self.layers if layer.tables is not None]

    @property
    def output_layers(self) -> list[IntegerLayer]:
        """Layer of each output."""
        return [self._layer_of[value] for value in self.outputs]

    @property
    def n_bootstraps(self) -> int:
        """Table lookups on ciphertexts per row: one per hidden neuron."""
        return sum(node.n_neurons for node in self.lookups)

    @property
    def n_rounding_bootstraps(self) -> int:
        """Bootstraps of 1 bit that exact rounding takes per row, besides the lookups."""
        return sum(layer.n_rounding_bootstraps for layer in self.layers)

    def bootstraps(self, rounding: str = "exact") -> str:
        """Describe in words how many bootstraps a row takes, and of how many bits."""
        n_rounding = self.n_rounding_bootstraps if rounding == "exact" else 0
        bits = [layer.n_table_bits for layer in self.hidden_layers]
        return bootstraps(self.n_bootstraps, bits, n_rounding)

    @cached_property
    def layer_names(self) -> list[str]:
        """Names of the layers for reports: "hidden 1" and so on, "output", "wide path"."""
        n_hidden, n_outputs, n_others, names = 0, 0, 0, []
        for value, layer in self._layer_of.items():
            if layer.tables is not None:
                n_hidden += 1
                names.append(f"hidden {n_hidden}")
            elif value in self.wide_paths:
                names.append("wide path")
            elif value in self.outputs:
                n_outputs += 1
                names.append("output" if n_outputs == 1 else f"output {n_outputs}")
            else:
                n_others += 1
                names.append(f"sum {n_others}")
        return names

    @property
    def wide_paths(self) -> list[int]:
        """Numbers of the outputs that read encrypted inputs directly, if other outputs do not."""
        n_inputs = len(self.inputs)
        straight = []
        for value in self.outputs:
            node = self.nodes[value - n_inputs]
            if isinstance(node, Sum) and max(node.reads) < n_inputs:
                straight.append(value)
        return straight if len(straight) < len(self.outputs) else []

    def quantize(self, X: Any) -> IntArray:
        """Turn features, an array or sparse, into integer codes of shape (n_samples, n_codes)."""
        return self.quantizer(X)

    def split(self, codes: IntArray) -> list[IntArray]:
        """Split codes into those of each encrypted input, of shape (n_rows, n_integers)."""
        return [codes[:, columns] for columns in self.inputs]

    def run(self, codes: IntArray) -> IntArray:
        """Compute accumulators of all outputs, concatenated, of shape (n_samples, n_sums)."""
        codes = self.quantizer.check_codes(codes)
        result = np.empty((len(codes), self.n_sums), dtype=np.int64)
        for start in range(0, len(codes), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            result[block] = self._accumulate(codes[block].T)
        return result

    def trace(self, codes: NDArray[Any]) -> Iterator[Traced]:
        """Compute every sum in order, and yield it with what it reads.

        Parameters
        ----------
        codes : ndarray of shape (n_codes, n_rows)
            Transposed, as :meth:`InputQuantizer.blocks` gives them.

        Yields
        ------
        layer : IntegerLayer
        inputs : ndarray of shape (n_inputs, n_rows)
            Values that the layer reads.
        sums : ndarray of shape (n_neurons, n_rows)
            Its accumulators, before the lookup.
        """
        yield from evaluate(self.nodes, self._layer_of, self._values(codes))

    def _values(self, codes: NDArray[Any]) -> list[NDArray[Any]]:
        every = np.arange(len(codes))
        return [codes if np.array_equal(c, every) else codes[c] for c in self.inputs]

    def _accumulate(self, codes: NDArray[Any]) -> NDArray[Any]:
        """Compute accumulators of shape (n_rows, n_sums) from transposed codes."""
        values = self._values(codes)
        for _ in evaluate(self.nodes, self._layer_of, values):
            pass
        read = [values[v] for v in self.outputs]
        return (read[0] if len(read) == 1 else np.concatenate(read)).T

    def dequantize(self, accumulators: IntArray) -> NDArray[np.float32]:
        """Turn accumulators into real outputs of shape (n_samples, n_outputs)."""
        return self.scaler(accumulators)

    def __call__(self, X: Any) -> NDArray[np.float32]:
        """Quantize, run and dequantize, a block of rows at a time."""
        X = self.quantizer.check(X)
        outputs = np.empty((X.shape[0], self.n_outputs), dtype=np.float32)
        for block, codes in self.quantizer.blocks(X, self._code_dtype):
            outputs[block] = self.dequantize(self._accumulate(codes))
        return outputs

    @cached_property
    def _code_dtype(self) -> np.dtype[Any]:
        """Integer type that holds every code and that the first sum takes without a copy."""
        return np.result_type(
            self.layers[0].sum_dtype, np.min_scalar_type(-int(self.quantizer.largest.max()) - 1)
        )


def _frozen_columns(inputs: Iterable[Any], n_codes: int) -> tuple[IntArray, ...]:
    """Freeze the columns of each input, or raise ValueError unless each has some of the codes."""
    frozen_inputs = tuple(frozen("inputs", columns, np.int64, 1) for columns in inputs)
    if not frozen_inputs or any(
        len(columns) == 0 or columns.min() < 0 or columns.max() >= n_codes
        for columns in frozen_inputs
    ):
        raise ValueError(
            "A program needs at least one input, and each input at least one of the codes 0 "
            f"to {n_codes - 1}. Got {frozen_inputs}."
        )
    return frozen_inputs
