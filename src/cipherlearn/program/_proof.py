"""Ranges of every value of a program, proven for every possible input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cipherlearn.program._layer import IntegerLayer
from cipherlearn.program._nodes import Lookup, Sum
from cipherlearn.program._values import IntArray

__all__ = ["Proof", "check_reads", "prove"]


@dataclass(frozen=True)
class Proof:
    """Proven ranges of all values of a program, and its layers.

    Attributes
    ----------
    ranges : tuple of (ndarray, ndarray)
        Smallest and largest integers of each value.
    layers : dict of IntegerLayer
        Each sum with the lookup that reads it, by the number of the sum's value.
    """

    ranges: tuple[tuple[IntArray, IntArray], ...]
    layers: dict[int, IntegerLayer]


def check_reads(n_inputs: int, nodes: Sequence[Sum | Lookup], outputs: Sequence[int]) -> None:
    """Check that nodes read values before them, and that all lead to the outputs, which are sums.

    A proof makes objects for each neuron. This makes none.

    Raises
    ------
    ValueError
        If they do not.
    """
    _lookup_of_each_sum(n_inputs, nodes)
    sums: set[int] = set()
    read: set[int] = set()
    for value, node in enumerate(nodes, n_inputs):
        reads = {node.reads} if isinstance(node, Lookup) else {*node.reads}
        if max(reads) >= value:
            raise ValueError(
                f"Nodes must read values before them. Value {value} reads {max(reads)}."
            )
        read |= reads
        if isinstance(node, Sum):
            sums.add(value)
    if not outputs or any(type(v) is not int or v not in sums for v in outputs):
        raise ValueError(f"The outputs of a program must be sums. Got {outputs!r}.")
    if unread := sorted({*range(n_inputs + len(nodes))} - read.union(outputs)):
        raise ValueError(f"Every value must be read or be an output. These are not: {unread}.")


def prove(largest: Sequence[IntArray], nodes: Sequence[Sum | Lookup]) -> Proof:
    """Bound every value by interval arithmetic, from the inputs on.

    The nodes must have passed :func:`check_reads`.
    The bound of one sum is :attr:`IntegerLayer.low` and :attr:`IntegerLayer.high`.

    Parameters
    ----------
    largest : sequence of ndarray
        Largest code of every integer of each input. The smallest is 0.
    nodes : sequence of Sum and Lookup

    Raises
    ------
    ValueError
        If sizes do not fit together, or a sum may leave its table or what integers hold.

    Examples
    --------
    >>> import numpy as np
    >>> from cipherlearn.program._nodes import Sum
    >>> from cipherlearn.program._proof import prove
    >>> low, high = prove([np.array([3, 1])], [Sum((0,), [[2, -1]])]).ranges[1]
    >>> int(low[0]), int(high[0])
    (-1, 6)
    """
    lookups = _lookup_of_each_sum(len(largest), nodes)
    ranges = [(np.zeros_like(codes), codes) for codes in largest]
    layers: dict[int, IntegerLayer] = {}
    for node in nodes:
        value = len(ranges)
        if isinstance(node, Lookup):
            proven = layers[node.reads].table_ranges
            low, high = np.array([(r.low, r.high) for r in proven], dtype=np.int64).T
        else:
            n_read = sum(len(ranges[v][0]) for v in node.reads)
            if n_read != node.weights.shape[1]:
                raise ValueError(
                    f"A sum needs a column of weights for each of the {n_read} integers that it "
                    f"reads. Got {node.weights.shape[1]} columns."
                )
            low, high = (np.concatenate([ranges[v][end] for v in node.reads]) for end in (0, 1))
            layers[value] = _layer(node, low, high, lookups.get(value))
            low, high = layers[value].low, layers[value].high
        ranges.append((low, high))
    return Proof(tuple(ranges), layers)


def _lookup_of_each_sum(n_inputs: int, nodes: Sequence[Sum | Lookup]) -> dict[int, Lookup]:
    """Map the number of each sum that a lookup reads to that lookup."""
    lookups: dict[int, Lookup] = {}
    for i, node in enumerate(nodes):
        if not isinstance(node, Lookup):
            continue
        read = node.reads - n_inputs
        if not (0 <= read < i and isinstance(nodes[read], Sum)) or node.reads in lookups:
            raise ValueError(
                "A lookup must read a sum before it that no other lookup reads. "
                f"Value {i + n_inputs} reads {node.reads}."
            )
        lookups[node.reads] = node
    return lookups


def _layer(node: Sum, low: IntArray, high: IntArray, lookup: Lookup | None) -> IntegerLayer:
    """Make a sum's layer, with tables that start at the smallest sum that is proven."""
    layer = IntegerLayer(node.weights, low, high, constant=node.constant)
    if lookup is None:
        return layer
    n_neurons, size = lookup.tables.shape
    start, end = layer.low - lookup.low, layer.high - lookup.low
    if n_neurons != len(layer.weights) or start.min() < 0 or end.max() >= size:
        raise ValueError(
            "Tables must cover every reachable accumulator: expected one for each of "
            f"{len(layer.weights)} neurons, with entries for sums of {layer.low} to {layer.high}. "
            f"Got tables of shape {lookup.tables.shape} from {lookup.low} on."
        )
    # Shorter ones repeat their last entry that is reached.
    reached = np.minimum(start[:, None] + np.arange((end - start).max() + 1), end[:, None])
    tables = np.take_along_axis(lookup.tables, reached, axis=1)
    return IntegerLayer(node.weights, low, high, tables, lookup.lsbs_to_remove, node.constant)
