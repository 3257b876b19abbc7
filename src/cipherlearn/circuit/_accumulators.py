"""Check that the accumulators of a program fit the bits allowed."""

from __future__ import annotations

from collections.abc import Sequence

from cipherlearn._exceptions import AccumulatorOverflowError
from cipherlearn.program._program import IntegerProgram

__all__ = ["check_accumulators"]


def check_accumulators(program: IntegerProgram, n_accum_bits: Sequence[int]) -> None:
    """Raise AccumulatorOverflowError unless every sum fits, for every possible input.

    Parameters
    ----------
    program : IntegerProgram
    n_accum_bits : sequence of int
        Bits allowed in each layer.

    Raises
    ------
    AccumulatorOverflowError
        If an accumulator needs more bits.

    Examples
    --------
    >>> from cipherlearn import NeuralNetClassifier
    >>> from cipherlearn.circuit._accumulators import check_accumulators
    >>> clf = NeuralNetClassifier(max_epochs=5).fit([[0.0], [1.0], [2.0]], [0, 0, 1])
    >>> check_accumulators(clf.program_, clf.module_.accum_bits)
    """
    if len(n_accum_bits) != len(program.layers):
        raise ValueError(
            f"n_accum_bits needs one width for each of the {len(program.layers)} layers. "
            f"Got {n_accum_bits!r}."
        )
    for i, (layer, allowed) in enumerate(zip(program.layers, n_accum_bits, strict=True)):
        for j, accumulator in enumerate(layer.accumulators):
            if accumulator.n_bits > allowed:
                raise AccumulatorOverflowError(
                    f"Every accumulator must fit its {allowed} bits for every possible "
                    f"input. Neuron {j} of layer {i} sums to between {accumulator.low} "
                    f"and {accumulator.high}, which needs {accumulator.n_bits} bits. Lower "
                    "module__n_hidden_neurons_multiplier, module__n_w_bits or module__n_a_bits, "
                    "enable module__pruning, or raise module__n_accum_bits (in hidden layers "
                    "module__n_hidden_accum_bits), and fit again. In a module of your own, lower "
                    "bit_width or weight_bit_width, or set callbacks__pruning__n_accum_bits."
                )
