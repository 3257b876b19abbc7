"""The two kinds of nodes of a program: integer sums, and lookups in tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cipherlearn.program._values import Immutable, IntArray, freeze

__all__ = ["Lookup", "Sum"]


@dataclass(frozen=True, eq=False)
class Sum(Immutable):
    """Integer matrix product of the values that it reads, plus a clear constant.

    On ciphertexts it costs next to nothing.

    Parameters
    ----------
    reads : tuple of int
        Numbers of the values that are concatenated and read. Values are numbered from 0: first
        the inputs of a program, then its nodes.
    weights : ndarray of shape (n_neurons, n_inputs), int64
        A column for each integer of the values, in their order. A sparse matrix becomes dense.
    constant : ndarray of shape (n_neurons,), int64, or None
        Added to every sum. ``None`` stands for 0.

    Examples
    --------
    >>> from cipherlearn.program._nodes import Sum
    >>> Sum((0, 2), [[1, -1, 3]]).constant
    array([0])
    """

    reads: tuple[int, ...]
    weights: IntArray
    constant: IntArray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", tuple(map(_number, self.reads)))
        if not self.reads:
            raise ValueError("A sum must read at least one value. Got none.")
        if hasattr(self.weights, "toarray"):
            object.__setattr__(self, "weights", self.weights.toarray())
        freeze(self, "weights", np.int64, 2)
        if self.constant is None:
            object.__setattr__(self, "constant", np.zeros(len(self.weights), dtype=np.int64))
        freeze(self, "constant", np.int64, 1)
        assert self.constant is not None
        if not len(self.weights) or len(self.constant) != len(self.weights):
            raise ValueError(
                "A sum needs at least one neuron, and one constant for each. "
                f"Got {len(self.weights)} neurons and {len(self.constant)} constants."
            )

    @property
    def n_neurons(self) -> int:
        """Number of sums."""
        return len(self.weights)

    def parts(self, sizes: Iterable[int]) -> list[IntArray]:
        """Split the weights by the values that are read, given the size of each value."""
        return np.split(self.weights, np.cumsum(list(sizes))[:-1], axis=1)


@dataclass(frozen=True, eq=False)
class Lookup(Immutable):
    """One lookup table for each neuron of a sum. On ciphertexts each takes a bootstrap.

    Parameters
    ----------
    reads : int
        Number of the sum.
    tables : ndarray of shape (n_neurons, table_size), int64
        ``tables[j, a - low[j]]`` is the code of neuron ``j`` at the sum ``a``.
    low : ndarray of shape (n_neurons,), int64
        Sum of the first entry of each table.
    lsbs_to_remove : int, default=0
        Least significant bits that tables do not see. Sums that round to the same multiple of
        ``2**lsbs_to_remove`` share an entry.

    Examples
    --------
    >>> from cipherlearn.program._nodes import Lookup
    >>> Lookup(1, [[0, 0, 1, 2]], [-1]).tables[0, 2 - -1]  # of a sum of 2
    2
    """

    reads: int
    tables: IntArray
    low: IntArray
    lsbs_to_remove: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", _number(self.reads))
        freeze(self, "tables", np.int64, 2)
        freeze(self, "low", np.int64, 1)
        if self.tables.size == 0 or len(self.low) != len(self.tables):
            raise ValueError(
                "A lookup needs a table with entries, and the sum of its first entry, for each "
                f"neuron. Got tables of shape {self.tables.shape} and {len(self.low)} sums."
            )

    @property
    def n_neurons(self) -> int:
        """Number of tables."""
        return len(self.tables)


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise ValueError(f"Values are read by their number, from 0. Got {value!r}.")
    return int(value)
