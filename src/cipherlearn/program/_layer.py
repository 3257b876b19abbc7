"""A layer: a sum with its proven ranges and the lookup that reads it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cipherlearn._words import count
from cipherlearn.program._values import Immutable, IntArray, IntegerRange, count_reached, freeze

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["IntegerLayer"]

# Tables of at most this many steps are evaluated by comparisons, which beat indexing.
_MAX_STEPS = 8


@dataclass(frozen=True, eq=False)
class IntegerLayer(Immutable):
    """A sum over inputs of proven ranges, and the lookup table of each neuron, if any.

    Programs are made of nodes. ``IntegerProgram.layers`` joins each sum with its lookup.

    Parameters
    ----------
    weights : ndarray of shape (n_neurons, n_inputs), int64
    input_low, input_high : ndarray of shape (n_inputs,), int64
        Proven range of every input code.
    tables : ndarray of shape (n_neurons, table_size), int64, or None
        ``tables[j, a - low[j]]`` is the code of neuron ``j`` at accumulator ``a``.
        ``None`` if no lookup follows.
    lsbs_to_remove : int, default=0
        Least significant bits that tables do not see: accumulators that round to the same
        multiple of ``2**lsbs_to_remove`` (:meth:`cell`) share an entry.
    constant : ndarray of shape (n_neurons,), int64, or None
        Added to every accumulator. ``None`` stands for 0.

    Raises
    ------
    ValueError
        If shapes do not fit together, tables do not cover every reachable accumulator, or a sum
        may reach 2**53.

    Examples
    --------
    >>> from cipherlearn.program._layer import IntegerLayer
    >>> layer = IntegerLayer([[1, -1]], [0, 0], [3, 3], tables=[[0, 0, 0, 0, 1, 2, 3]])
    >>> layer.accumulators, layer.n_table_bits
    ([IntegerRange(low=-3, high=3)], 3)
    >>> layer([[3, 1], [0, 2]]).tolist()
    [[2], [0]]
    """

    weights: IntArray
    input_low: IntArray
    input_high: IntArray
    tables: IntArray | None = None
    lsbs_to_remove: int = 0
    constant: IntArray | None = None

    def __post_init__(self) -> None:
        freeze(self, "weights", np.int64, 2)
        freeze(self, "input_low", np.int64, 1)
        freeze(self, "input_high", np.int64, 1)
        if self.constant is None:
            object.__setattr__(self, "constant", np.zeros(len(self.weights), dtype=np.int64))
        freeze(self, "constant", np.int64, 1)
        if not self.input_low.shape == self.input_high.shape == (self.weights.shape[1],):
            raise ValueError("A layer needs one input range per column of its weights.")
        if (self.input_low > self.input_high).any():
            raise ValueError("Input ranges need low <= high.")
        if self._reach() >= 2**53:
            raise ValueError("Sums must stay below 2**53, where float64 holds every integer.")
        if self.tables is not None:
            freeze(self, "tables", np.int64, 2)
            needed = int((self.high - self.low).max()) + 1
            if len(self.tables) != len(self.weights) or self.tables.shape[1] < needed:
                raise ValueError(
                    "Tables must cover every reachable accumulator: expected "
                    f"({len(self.weights)}, >= {needed}). Got {self.tables.shape}."
                )
            if self.tables.min() < 0:
                raise ValueError(f"Codes in tables start at 0. Got {self.tables.min()}.")
        self._check_rounding()

    def _check_rounding(self) -> None:
        if not 0 <= self.lsbs_to_remove < 53 or (self.lsbs_to_remove and self.tables is None):
            raise ValueError(
                f"Only a layer with tables removes bits, and at most 52. Got {self.lsbs_to_remove}."
            )
        if self.lsbs_to_remove == 0:
            return
        assert self.tables is not None
        for low, high, table in zip(self.low, self.high, self.tables, strict=True):
            sums = np.arange(low, high + 1)
            same_cell = np.diff(self.cell(sums)) == 0
            if np.diff(table[: len(sums)])[same_cell].any():
                raise ValueError(
                    f"Tables must not tell apart sums that {self.lsbs_to_remove} removed bits "
                    "make equal."
                )

    def check_inputs(self, low: IntArray, high: IntArray) -> None:
        """Raise ValueError unless the assumed input ranges contain the proven ones."""
        for assumed_low, assumed_high, proven_low, proven_high in zip(
            self.input_low.tolist(), self.input_high.tolist(), low.tolist(), high.tolist(),
            strict=True,
        ):  # fmt: skip
            if proven_low < assumed_low or proven_high > assumed_high:
                raise ValueError(
                    f"A layer assumes inputs in [{assumed_low}, {assumed_high}] but may receive "
                    f"[{proven_low}, {proven_high}]."
                )

    def cell(self, accumulators: IntArray) -> IntArray:
        """Round accumulators to multiples of ``2**lsbs_to_remove``, in that unit."""
        half = (1 << self.lsbs_to_remove) >> 1
        return (accumulators + half) >> self.lsbs_to_remove

    @property
    def n_table_bits(self) -> int:
        """Bits of an accumulator that the tables see."""
        return max(1, int((self.cell(self.high) - self.cell(self.low)).max()).bit_length())

    @property
    def n_weights(self) -> int:
        """Number of non-zero weights."""
        return int(np.count_nonzero(self.weights))

    @property
    def n_rounding_bootstraps(self) -> int:
        """Bootstraps of 1 bit that exact rounding takes: one for each removed bit of a neuron."""
        return self.lsbs_to_remove * len(self.weights)

    def _reach(self) -> float:
        """Bound the magnitude of every partial sum, in floats, which cannot wrap."""
        largest = np.maximum(
            np.abs(self.input_low.astype(float)), np.abs(self.input_high.astype(float))
        )
        assert self.constant is not None
        constant = np.abs(self.constant.astype(float))
        return float((np.abs(self.weights.astype(float)) @ largest + constant).max())

    @cached_property
    def low(self) -> IntArray:
        """Smallest accumulator of each neuron over every possible input."""
        return self._extreme_sum(self.input_low, self.input_high)

    @cached_property
    def high(self) -> IntArray:
        """Largest accumulator of each neuron over every possible input."""
        return self._extreme_sum(self.input_high, self.input_low)

    def _extreme_sum(self, for_positive: IntArray, for_negative: IntArray) -> IntArray:
        extreme = np.maximum(self.weights, 0) @ for_positive
        extreme += np.minimum(self.weights, 0) @ for_negative
        assert self.constant is not None
        extreme += self.constant
        extreme.setflags(write=False)
        return extreme

    @property
    def accumulators(self) -> list[IntegerRange]:
        """Proven range of each neuron's accumulator."""
        return [
            IntegerRange(low, high)
            for low, high in zip(self.low.tolist(), self.high.tolist(), strict=True)
        ]

    @property
    def n_accum_bits(self) -> int:
        """Bits that hold every accumulator of the layer."""
        return max(r.n_bits for r in self.accumulators)

    @property
    def cell_tables(self) -> IntArray:
        """Table entries of each neuron (row) by rounded accumulator, from the smallest on.

        Each row has ``2**n_table_bits`` entries. Those beyond reach repeat the last one within.
        """
        assert self.tables is not None
        cells = self.cell(self.low)[:, None] + np.arange(2**self.n_table_bits)
        # The first and last multiples may lie just beyond reach.
        reached = (cells << self.lsbs_to_remove).clip(self.low[:, None], self.high[:, None])
        return np.take_along_axis(self.tables, reached - self.low[:, None], axis=1)

    @property
    def output_bits(self) -> int:
        """Bits that hold every code that the tables give."""
        return max(1, *(r.high.bit_length() for r in self.table_ranges))

    @property
    def table_ranges(self) -> list[IntegerRange]:
        """Range of each neuron's output codes, over its reachable accumulators."""
        assert self.tables is not None
        sizes = (self.high - self.low + 1).tolist()
        rows = [row[:size] for row, size in zip(self.tables, sizes, strict=True)]
        return [IntegerRange(int(row.min()), int(row.max())) for row in rows]

    def __repr__(self) -> str:
        n_neurons, n_inputs = self.weights.shape
        tables = "no tables"
        if self.tables is not None:
            tables = f"{count(n_neurons, 'table')} of {count(self.n_table_bits, 'bit')}"
        return (
            f"<IntegerLayer: {count(n_neurons, 'neuron')} of {count(n_inputs, 'input')}, "
            f"{count(self.n_weights, 'non-zero weight')}, "
            f"sums of {count(self.n_accum_bits, 'bit')}, {tables}>"
        )

    def __call__(self, codes: IntArray) -> IntArray:
        sums = self.sums(np.asarray(codes).T)
        return (sums if self.tables is None else self.look_up(sums)).astype(np.int64).T

    def sums(self, codes: IntArray) -> IntArray:
        """Compute accumulators of transposed codes, with a row per input."""
        sums: IntArray = self._sparse_weights @ codes.astype(self.sum_dtype, copy=False)
        assert self.constant is not None
        if self.constant.any():
            sums += self.constant[:, None].astype(self.sum_dtype)
        return sums

    def look_up(self, sums: IntArray) -> IntArray:
        """Compute codes of accumulators, both with a row per neuron."""
        assert self.tables is not None
        if self._steps is None:
            index = sums.astype(np.intp)
            index += (np.arange(len(self.weights)) * self.tables.shape[1] - self.low)[:, None]
            return self.tables.ravel().take(index)
        first, rises, falls = self._steps
        outputs: IntArray = first + count_reached(sums, rises)
        outputs -= count_reached(sums, falls)
        return outputs

    @cached_property
    def sum_dtype(self) -> np.dtype[Any]:
        """Narrowest integer type that holds every partial sum, and one more."""
        return np.min_scalar_type(-int(self._reach()) - 2)

    @cached_property
    def _sparse_weights(self) -> csr_array:
        # Most weights are pruned, and BLAS knows no integers. A client never comes here, and
        # imports faster without.
        from scipy.sparse import csr_array

        return csr_array(self.weights.astype(self.sum_dtype))

    @cached_property
    def _steps(self) -> tuple[IntArray, IntArray, IntArray] | None:
        """First table entries, and accumulators where they rise or fall by 1; None if too many."""
        assert self.tables is not None
        sizes = (self.high - self.low + 1).tolist()
        changes = [np.diff(row[:size]) for row, size in zip(self.tables, sizes, strict=True)]
        if max(np.abs(change).sum() for change in changes) > _MAX_STEPS:
            return None
        reached = [low + 1 + np.arange(len(c)) for low, c in zip(self.low, changes, strict=True)]
        rises = [np.repeat(a, np.maximum(c, 0)) for a, c in zip(reached, changes, strict=True)]
        falls = [np.repeat(a, np.maximum(-c, 0)) for a, c in zip(reached, changes, strict=True)]
        # Unsigned sums that wrap on the way to a code wrap back.
        first = self.tables[:, :1].astype(np.min_scalar_type(self.tables.max()))
        return first, self._by_step(rises), self._by_step(falls)

    def _by_step(self, thresholds: list[IntArray]) -> IntArray:
        """Stack thresholds of shape (n_steps, n_neurons), filled up with some beyond reach."""
        shape = max(map(len, thresholds)), len(thresholds)
        stacked = np.full(shape, int(self._reach()) + 1, dtype=self.sum_dtype)
        for neuron, values in enumerate(thresholds):
            stacked[: len(values), neuron] = values
        return stacked
