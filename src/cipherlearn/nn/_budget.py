"""Budget of a neuron: the number of its non-zero weights, or the sum of their magnitudes."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence

__all__ = ["fan_in", "l1_limit", "max_active_neurons", "neuron_budget"]


def max_active_neurons(n_max: int, n_weights: int, n_inputs: int) -> int:
    r"""Count the products that fit an accumulator, whatever their values.

    .. math:: \Omega = \left\lfloor
        \frac{2^{n_{max}} - 1}{(2^{n_{weights}} - 1)(2^{n_{inputs}} - 1)} \right\rfloor

    A product of an ``n_weights``-bit and an ``n_inputs``-bit integer is at most
    ``(2**n_weights - 1) * (2**n_inputs - 1)``, so the sum of Ω of them is below
    ``2**n_max``. The same number bounds a convolution, where one filter sums
    :func:`fan_in` products.

    Parameters
    ----------
    n_max : int
        Bit-width of the accumulator.
    n_weights : int
        Bit-width of a weight.
    n_inputs : int
        Bit-width of the neuron's inputs.

    Returns
    -------
    int
        Ω, which is 0 when not even one product fits.

    Raises
    ------
    ValueError
        If a bit-width is not a positive integer.

    References
    ----------
    Concrete-ML's documentation, "Pruning" and "Quantization-aware training",
    derives the same count.

    Examples
    --------
    >>> from cipherlearn import max_active_neurons
    >>> max_active_neurons(8, 2, 2)
    28
    """
    for name, value in (("n_max", n_max), ("n_weights", n_weights), ("n_inputs", n_inputs)):
        _check_positive_int(name, value)
    return (2**n_max - 1) // ((2**n_weights - 1) * (2**n_inputs - 1))


def neuron_budget(n_max: int, n_weights: int, n_inputs: int, multiplier: float = 1.0) -> int:
    """Bound the number of non-zero weights of one neuron or convolutional filter.

    Parameters
    ----------
    n_max, n_weights, n_inputs : int
        As in :func:`max_active_neurons`, in bits.
    multiplier : float
        Factor on Ω. Ω assumes that every weight has the largest magnitude;
        trained weights do not, so a factor above 1 often still fits.
        ``compile`` checks whether it does.

    Returns
    -------
    int
        ``floor(multiplier * max_active_neurons(n_max, n_weights, n_inputs))``.

    Raises
    ------
    ValueError
        If the budget is 0: such a neuron could not see any input.

    Examples
    --------
    >>> from cipherlearn.nn._budget import neuron_budget
    >>> neuron_budget(8, 2, 2, multiplier=0.5)
    14
    """
    omega = max_active_neurons(n_max, n_weights, n_inputs)
    if not (isinstance(multiplier, numbers.Real) and math.isfinite(multiplier) and multiplier > 0):
        raise ValueError(
            "n_hidden_neurons_multiplier must be a positive finite number. "
            f"Got {multiplier!r}. Pass a number above 0, such as 1.0."
        )
    budget = math.floor(multiplier * omega)
    if budget == 0:
        raise ValueError(
            "The budget of non-zero weights per neuron, floor(n_hidden_neurons_multiplier * Ω), "
            f"must be at least 1. Got floor({multiplier} * {omega}) = 0 with {n_max} accumulator "
            f"bits, {n_weights} weight bits and {n_inputs} input bits. Raise n_accum_bits or "
            "n_hidden_neurons_multiplier, or lower n_w_bits or n_a_bits."
        )
    return budget


def l1_limit(n_max: int, n_inputs: int) -> int:
    r"""Bound the sum of the magnitudes of one neuron's integer weights.

    Inputs are codes from 0 to :math:`2^{n_{inputs}} - 1`, so the accumulator of weights
    :math:`w` takes values in a range of width :math:`\|w\|_1 (2^{n_{inputs}} - 1)`. A clear
    constant moves the range to start at 0, so it fits ``n_max`` bits if

    .. math:: \|w\|_1 \le \left\lfloor \frac{2^{n_{max}} - 1}{2^{n_{inputs}} - 1} \right\rfloor

    Parameters
    ----------
    n_max : int
        Bit-width of the accumulator.
    n_inputs : int
        Bit-width of the neuron's inputs.

    Returns
    -------
    int
        The bound.

    Raises
    ------
    ValueError
        If a bit-width is not a positive integer, or the bound is 0.

    References
    ----------
    Colbert, Pappalardo and Petri-Koenig, "A2Q: Accumulator-aware quantization with guaranteed
    overflow avoidance", 2023, section 3, for signed accumulators.

    Examples
    --------
    >>> from cipherlearn.nn._budget import l1_limit
    >>> [l1_limit(n_max, 2) for n_max in (4, 5, 6)]
    [5, 10, 21]
    """
    for name, value in (("n_max", n_max), ("n_inputs", n_inputs)):
        _check_positive_int(name, value)
    limit = (2**n_max - 1) // (2**n_inputs - 1)
    if limit == 0:
        raise ValueError(
            f"An accumulator must hold at least one {n_inputs}-bit input. Got {n_max} bits. Raise "
            "n_accum_bits, n_hidden_accum_bits or n_output_accum_bits, or lower n_a_bits."
        )
    return limit


def fan_in(weight_shape: Sequence[int]) -> int:
    """Count the weights that one output sums over.

    Parameters
    ----------
    weight_shape : sequence of int
        Shape of a weight tensor as torch stores it: ``(outputs, inputs)`` for a
        linear layer, ``(filters, channels, kernel height, kernel width)`` for a
        convolution.

    Returns
    -------
    int
        ``inputs``, or channels × kernel height × kernel width.

    Raises
    ------
    ValueError
        If the shape has fewer than two dimensions.

    Examples
    --------
    >>> from cipherlearn.nn._budget import fan_in
    >>> fan_in((16, 30)), fan_in((8, 3, 5, 5))
    (30, 75)
    """
    if len(weight_shape) < 2:
        raise ValueError(
            "A weight tensor needs an output and at least one input dimension. "
            f"Got shape {tuple(weight_shape)}."
        )
    return math.prod(weight_shape[1:])


def _check_positive_int(name: str, value: int) -> None:
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise ValueError(f"{name} must be a positive integer number of bits. Got {value!r}.")
