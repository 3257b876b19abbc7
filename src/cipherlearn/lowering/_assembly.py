"""Program under construction: inputs and nodes as they are found, numbered at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array

from cipherlearn._exceptions import AccumulatorOverflowError
from cipherlearn.lowering._signals import Sums, identity
from cipherlearn.program._decoder import OutputScaler
from cipherlearn.program._encoder import InputQuantizer
from cipherlearn.program._nodes import Lookup, Sum
from cipherlearn.program._program import IntegerProgram
from cipherlearn.program._values import FloatArray, IntArray

__all__ = ["LARGEST_TABLE_BITS", "Assembly"]

# Concrete's lookup tables see so many bits.
LARGEST_TABLE_BITS = 16

# Values of a block of the grid on which tables are filled.
_BLOCK_VALUES = 1 << 22

# Integers (rows, n) and the unit of each, made of the integers of sums.
Table = Callable[[IntArray], tuple[IntArray, FloatArray]]


@dataclass
class _Value:
    """An input, of thresholds, or a node, of reads by position among all values."""

    columns: slice
    input: tuple[IntArray, FloatArray] | None = None
    node: Sum | Lookup | None = None


class Assembly:
    """Inputs, sums and lookups in the order in which a module's forward makes them.

    Parameters
    ----------
    n_features : int
    """

    def __init__(self, n_features: int) -> None:
        self.n_features = n_features
        self._values: list[_Value] = []
        self._low = np.zeros(0, dtype=np.int64)
        self._high = np.zeros(0, dtype=np.int64)

    def add_input(
        self, feature: IntArray, thresholds: FloatArray, first: IntArray, scale: FloatArray
    ) -> Sums:
        """Encrypt codes of features. A code of 0 stands for the integer ``first``."""
        largest = np.isfinite(thresholds).sum(axis=1)
        columns = self._add_columns(np.zeros_like(largest), largest)
        self._values.append(_Value(columns, input=(feature, thresholds)))
        return self._fresh(columns, first, scale)

    def ranges(self, sums: Sums) -> tuple[IntArray, IntArray]:
        """Smallest and largest value of each sum, for every possible input."""
        n_columns = sums.weights.shape[1]
        up, down = sums.weights.maximum(0), sums.weights.minimum(0)
        low, high = self._low[:n_columns], self._high[:n_columns]
        return up @ low + down @ high + sums.constant, up @ high + down @ low + sums.constant

    def add_sum(self, sums: Sums) -> int:
        """Add a node for sums of what there is, and return its position."""
        reads, parts = [], []
        used = np.zeros(len(self._low), dtype=bool)
        used[sums.weights.indices] = True
        for position, value in enumerate(self._values):
            if used[value.columns].any():
                inside = slice(value.columns.start, value.columns.stop)
                reads.append(position)
                parts.append(sums.weights[:, inside].toarray())
        if not reads:
            # A constant still reads something.
            reads = [0]
            parts = [np.zeros((len(sums), _length(self._values[0].columns)), dtype=np.int64)]
        weights = np.concatenate(parts, axis=1)
        end = slice(len(self._low), len(self._low))
        self._values.append(_Value(end, node=Sum(tuple(reads), weights, sums.constant)))
        return len(self._values) - 1

    def look_up(
        self,
        sums: Sums,
        table: Table,
        owner: str,
        shape: tuple[int, ...],
        order: IntArray | None = None,
    ) -> Sums:
        """Add a lookup of what ``table`` makes of sums.

        Parameters
        ----------
        sums : Sums
        table : callable
        owner, shape
            Name of the layer that made the sums, and shape of what is made, for messages.
        order : ndarray, default=None
            Sum that each of the made integers depends on. ``None`` stands for its own.
        """
        order = np.arange(len(sums)) if order is None else order
        low, high = self.ranges(sums)
        self._check_width(sums, low, high, order, owner, shape)
        size = int((high - low).max()) + 1
        tables = np.empty((len(order), size), dtype=np.int64)
        scale: FloatArray | None = None
        n_block = max(1, _BLOCK_VALUES // max(len(sums), len(order)))
        for start in range(0, size, n_block):
            # Beyond reach the last entry is repeated.
            offset = np.arange(start, min(size, start + n_block))[:, None]
            integers = np.minimum(low + offset, high)
            made, unit = table(integers)
            if scale is not None and (unit != scale).any():
                raise ValueError(f"Scales must not depend on the data. Those of {owner} do.")
            scale = unit
            tables[:, start : start + n_block] = made.T
        assert scale is not None
        first = tables.min(axis=1)
        tables -= first[:, None]
        read = self.add_sum(sums.take(order))
        columns = self._add_columns(np.zeros(len(order), dtype=np.int64), tables.max(axis=1))
        self._values.append(_Value(columns, node=Lookup(read, tables, low[order])))
        return self._fresh(columns, first, scale)

    def finish(
        self, outputs: list[int], scaler: OutputScaler
    ) -> tuple[IntegerProgram, dict[int, int]]:
        """Make the program, without values that no output needs, and say where each value is."""
        needed = set(outputs)
        for position in reversed(range(len(self._values))):
            node = self._values[position].node
            if position in needed and node is not None:
                needed.update(_reads(node))
        inputs = [p for p in sorted(needed) if self._values[p].input is not None]
        nodes = [p for p in sorted(needed) if self._values[p].input is None]
        number = {position: i for i, position in enumerate([*inputs, *nodes])}
        codes = [given for p in inputs if (given := self._values[p].input) is not None]
        quantizer = InputQuantizer(
            self.n_features,
            np.concatenate([feature for feature, _ in codes]),
            _stacked([thresholds for _, thresholds in codes]),
        )
        ends = np.cumsum([0, *(len(feature) for feature, _ in codes)])
        made = [node for p in nodes if (node := self._values[p].node) is not None]
        program = IntegerProgram(
            quantizer,
            tuple(np.arange(a, b) for a, b in pairwise(ends)),
            tuple(_renumbered(node, number) for node in made),
            tuple(number[position] for position in outputs),
            scaler,
        )
        return program, number

    def position(self, sums: Sums) -> int | None:
        """Return the position of the value that fresh integers are, each a column of its own."""
        columns = sums.weights.indices
        for position, value in enumerate(self._values):
            if _length(value.columns) and value.columns.start == columns[0]:
                return position
        return None

    def _add_columns(self, low: IntArray, high: IntArray) -> slice:
        start = len(self._low)
        self._low = np.concatenate([self._low, low])
        self._high = np.concatenate([self._high, high])
        return slice(start, len(self._low))

    def _fresh(self, columns: slice, first: IntArray, scale: FloatArray) -> Sums:
        n = _length(columns)
        eye = identity(n)
        weights = csr_array((eye.data, eye.indices + columns.start, eye.indptr), (n, columns.stop))
        return Sums(weights, first.astype(np.int64), scale)

    def _check_width(
        self, sums: Sums, low, high, order: IntArray, owner: str, shape: tuple[int, ...]
    ) -> None:
        """Raise AccumulatorOverflowError if a table would be too large."""
        widths = (high - low)[order]
        worst = int(widths.argmax())
        n_bits = max(1, int(widths[worst]).bit_length())
        if n_bits <= LARGEST_TABLE_BITS:
            return
        row = sums.weights[[int(order[worst])]]
        spans = (self._high - self._low)[row.indices] * np.abs(row.data)
        fitting = int(np.searchsorted(np.sort(spans)[::-1].cumsum(), 2**LARGEST_TABLE_BITS))
        where = np.unravel_index(worst, shape) if shape else (0,)
        raise AccumulatorOverflowError(
            f"Lookup tables see at most {LARGEST_TABLE_BITS} bits. Channel {where[0]} of layer "
            f"{owner} sums {np.count_nonzero(spans)} products to between "
            f"{low[order[worst]]} and {high[order[worst]]}, which needs {n_bits} bits. Lower the "
            "bit_width of its inputs or its weight_bit_width by "
            f"{n_bits - LARGEST_TABLE_BITS} together, or prune each filter to {fitting} non-zero "
            "weights, with PruningCallback or torch.nn.utils.prune."
        )


def _length(columns: slice) -> int:
    return int(columns.stop - columns.start)


def _reads(node: Sum | Lookup) -> tuple[int, ...]:
    return (node.reads,) if isinstance(node, Lookup) else node.reads


def _renumbered(node: Sum | Lookup, number: dict[int, int]) -> Sum | Lookup:
    if isinstance(node, Lookup):
        return Lookup(number[node.reads], node.tables, node.low, node.lsbs_to_remove)
    return Sum(tuple(number[v] for v in node.reads), node.weights, node.constant)


def _stacked(thresholds: list[FloatArray]) -> FloatArray:
    """Stack rows of thresholds, filled up with infinities."""
    width = max(1, *(rows.shape[1] for rows in thresholds))
    return np.concatenate(
        [np.pad(t, ((0, 0), (0, width - t.shape[1])), constant_values=np.inf) for t in thresholds]
    )
