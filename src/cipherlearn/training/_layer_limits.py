"""Limits that the layers of a program were trained with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cipherlearn.nn._network import SparseQuantNeuralNetImpl

__all__ = ["LayerLimits", "layer_limits"]

# What lowering allows the sums of any module.
_LARGEST_BITS = 16


@dataclass(frozen=True)
class LayerLimits:
    """Limits of every layer of a program, in their order.

    Attributes
    ----------
    n_neurons : list of int
        Neurons that were trained.
    budgets : list of int
        Largest number of non-zero weights of a neuron.
    accum_bits : list of int
        Bits that accumulators may have.
    n_inputs : list of int
        Inputs of a neuron.
    max_spans : list of (int or None)
        Largest width of a sum, where it is bounded.
    max_levels : list of int
        Largest magnitude of a weight.
    """

    n_neurons: list[int]
    budgets: list[int]
    accum_bits: list[int]
    n_inputs: list[int]
    max_spans: list[int | None]
    max_levels: list[int]


def layer_limits(net: Any) -> LayerLimits:
    """Return what the layers of a fitted estimator were allowed.

    The layers of a module that users wrote are those of its program: as wide as they are, with
    every input, and sums of up to 16 bits.

    Examples
    --------
    >>> from cipherlearn import NeuralNetClassifier
    >>> from cipherlearn.training._layer_limits import layer_limits
    >>> clf = NeuralNetClassifier(module__n_layers=1, max_epochs=5).fit([[0.0], [1.0]], [0, 1])
    >>> layer_limits(clf).n_neurons
    [2]
    """
    module, layers = net.module_, net.program_.layers
    if isinstance(module, SparseQuantNeuralNetImpl):
        return LayerLimits(
            module.n_neurons,
            module.budgets,
            module.accum_bits,
            [linear.in_features for linear in module.linears],
            list(module.max_widths),
            [linear.max_level for linear in module.linears],
        )
    return LayerLimits(
        [len(layer.weights) for layer in layers],
        [layer.weights.shape[1] for layer in layers],
        [_LARGEST_BITS] * len(layers),
        [layer.weights.shape[1] for layer in layers],
        [None] * len(layers),
        [max(1, int(abs(layer.weights).max())) for layer in layers],
    )
