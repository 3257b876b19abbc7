"""Evaluation of a program's nodes on clear integers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn.program._layer import IntegerLayer
from cipherlearn.program._nodes import Lookup, Sum

__all__ = ["Traced", "evaluate"]

# A layer, the values that it reads, and its accumulators.
Traced = tuple[IntegerLayer, NDArray[Any], NDArray[Any]]


def evaluate(
    nodes: Sequence[Sum | Lookup], layers: Mapping[int, IntegerLayer], values: list[NDArray[Any]]
) -> Iterator[Traced]:
    """Compute the value of every node, in order, and yield each layer on the way.

    Parameters
    ----------
    nodes : sequence of Sum and Lookup
    layers : dict of IntegerLayer
        The layer of each sum, by the number of its value.
    values : list of ndarray of shape (n_integers, n_rows)
        Values of the inputs. The value of each node is appended.

    Yields
    ------
    layer : IntegerLayer
    inputs : ndarray of shape (n_inputs, n_rows)
        Values that the layer reads.
    sums : ndarray of shape (n_neurons, n_rows)
        Its accumulators, before the lookup.

    Examples
    --------
    >>> import numpy as np
    >>> from cipherlearn.program._evaluation import evaluate
    >>> from cipherlearn.program._nodes import Sum
    >>> from cipherlearn.program._proof import prove
    >>> nodes = [Sum((0,), [[2, -1]])]
    >>> values = [np.array([[3, 0], [1, 1]])]
    >>> [(_, _, sums)] = evaluate(nodes, prove([np.array([3, 1])], nodes).layers, values)
    >>> sums.tolist()
    [[5, -1]]
    """
    for node in nodes:
        if isinstance(node, Lookup):
            values.append(layers[node.reads].look_up(values[node.reads]))
            continue
        read = [values[v] for v in node.reads]
        inputs = read[0] if len(read) == 1 else np.concatenate(read)
        layer = layers[len(values)]
        values.append(layer.sums(inputs))
        yield layer, inputs, values[-1]
