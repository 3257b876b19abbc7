"""Plan of a network: for each linear layer its shape, bit-widths, budget and largest span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cipherlearn._checks import check_int
from cipherlearn.nn._budget import l1_limit, neuron_budget

__all__ = ["LayerPlan", "hidden_widths", "plan_layers"]

# Weights and sums of the wide path. Nothing looks its sums up, so bits cost it next to nothing.
_WIDE_WEIGHT_BITS, _WIDE_ACCUM_BITS = 8, 16


@dataclass(frozen=True)
class LayerPlan:
    """Plan of one linear layer.

    Parameters
    ----------
    n_inputs, n_neurons : int
        Shape of the layer.
    largest_code : int
        Largest code of an input.
    weight_bits : int
        Bit-width of a weight.
    accum_bits : int
        Bit-width of an accumulator.
    budget : int
        Largest number of a neuron's non-zero weights.
    max_span : int or None
        Largest sum of a neuron's ``abs(weight) * largest_code``. With None only ``compile`` checks
        whether accumulators fit.
    lsbs_to_remove : int, default=0
        Least significant bits of an accumulator that its lookup table does not see.
    """

    n_inputs: int
    n_neurons: int
    largest_code: int
    weight_bits: int
    accum_bits: int
    budget: int
    max_span: int | None
    lsbs_to_remove: int = 0


def hidden_widths(n_layers: int, n_hidden_neurons: int | Sequence[int]) -> list[int]:
    """Return the neurons of each hidden layer."""
    if isinstance(n_hidden_neurons, Sequence | np.ndarray):
        widths = list(n_hidden_neurons)
    else:
        widths = [n_hidden_neurons] * (n_layers - 1)
    if len(widths) != n_layers - 1:
        raise ValueError(
            "n_hidden_neurons must be an int, or hold one width per hidden layer "
            f"(n_layers - 1 = {n_layers - 1}). Got {n_hidden_neurons!r}."
        )
    return [check_int("n_hidden_neurons", width, 1) for width in widths]


def plan_layers(
    widths: Sequence[int],
    *,
    n_w_bits: int,
    n_a_bits: int,
    n_accum_bits: int,
    n_hidden_accum_bits: int | None = None,
    n_output_accum_bits: int | None = None,
    rounding_bits: int | None = None,
    n_hidden_neurons_multiplier: float = 1.0,
    budget: str = "omega",
    pruning: bool = True,
    wide_path: bool = False,
    n_input_bits: int | None = None,
    n_wide_codes: int | None = None,
) -> tuple[LayerPlan, ...]:
    """Plan the layers of a network: those one after the other, and the wide path.

    Parameters
    ----------
    widths : sequence of int
        Number of codes of a row, neurons of each hidden layer, and number of outputs.
    n_w_bits, n_a_bits, n_accum_bits, n_hidden_accum_bits, n_output_accum_bits, rounding_bits
        As for ``SparseQuantNeuralNetImpl``.
    n_hidden_neurons_multiplier, budget, pruning, wide_path, n_input_bits
        As for ``SparseQuantNeuralNetImpl``.
    n_wide_codes : int or None, default=None
        Number of codes that the wide path reads. With None it reads those of the first layer.

    Returns
    -------
    tuple of LayerPlan
        The wide path comes last. It is the only one if there is no hidden layer.

    Raises
    ------
    ValueError
        If ``budget`` is unknown, or a neuron could have no weight at all.

    Examples
    --------
    >>> from cipherlearn.nn._plan import plan_layers
    >>> hidden, last = plan_layers(
    ...     [30, 16, 2], n_w_bits=2, n_a_bits=2, n_accum_bits=8, n_hidden_accum_bits=5
    ... )
    >>> hidden.accum_bits, hidden.budget, hidden.max_span
    (5, 28, 31)
    >>> last.accum_bits, last.budget, last.max_span
    (8, 28, None)
    >>> (wide,) = plan_layers([90, 3], n_w_bits=2, n_a_bits=2, n_accum_bits=8, wide_path=True)
    >>> wide.weight_bits, wide.accum_bits, wide.budget, wide.max_span
    (8, 16, 90, 65535)
    """
    if budget not in ("omega", "l1"):
        raise ValueError(f'budget must be "omega" or "l1". Got {budget!r}.')
    largest_code = 2**n_a_bits - 1
    input_code = largest_code if n_input_bits is None else 2**n_input_bits - 1
    n_wide_codes = widths[0] if n_wide_codes is None else n_wide_codes
    wide = [_plan_wide_path(n_wide_codes, widths[-1], largest_code)] if wide_path else []
    if wide and len(widths) == 2:
        return tuple(wide)
    hidden_bits = output_bits = n_accum_bits
    if pruning and n_hidden_accum_bits is not None:
        hidden_bits = min(hidden_bits, n_hidden_accum_bits)
    if pruning and n_output_accum_bits is not None:
        output_bits = min(output_bits, n_output_accum_bits)
    n_removed = 0 if rounding_bits is None else max(0, hidden_bits - rounding_bits)
    limit = None
    if pruning and budget == "omega":
        # One for all layers, for the widest codes that any reads.
        n_bits = max(largest_code, input_code).bit_length()
        limit = neuron_budget(n_accum_bits, n_w_bits, n_bits, n_hidden_neurons_multiplier)
    plans = []
    for i, (n_inputs, n_neurons) in enumerate(pairwise(widths)):
        is_hidden = i < len(widths) - 2
        n_max, lsbs = (hidden_bits, n_removed) if is_hidden else (output_bits, 0)
        max_span = None
        largest = largest_code if i else input_code
        if pruning:
            n_bits = largest.bit_length()
            # One weight at least must fit.
            l1_limit(n_max, n_bits)
            max_span = 2**n_max - 2**lsbs
            if max_span < largest:
                raise ValueError(
                    f"Rounding {n_max}-bit sums to rounding_bits={rounding_bits} leaves widths up "
                    f"to {max_span}, less than one input of {n_bits} bits spans. Raise "
                    "rounding_bits or n_hidden_accum_bits."
                )
            # A count alone does not make sums as narrow as asked, nor those of "l1", nor does it
            # keep rounding from reaching one step too many.
            if budget == "omega" and n_max == n_accum_bits and not lsbs:
                max_span = None
        n_weights = n_inputs if limit is None else limit
        plans.append(
            LayerPlan(n_inputs, n_neurons, largest, n_w_bits, n_max, n_weights, max_span, lsbs)
        )
    return (*plans, *wide)


def _plan_wide_path(n_codes: int, n_outputs: int, largest_code: int) -> LayerPlan:
    """Plan the layer from the codes of a row straight to the outputs.

    No bootstrap reads its sums, so it may have a weight for every code. Its span is bounded, so
    its sums fit whatever the weights.
    """
    return LayerPlan(
        n_inputs=n_codes,
        n_neurons=n_outputs,
        largest_code=largest_code,
        weight_bits=_WIDE_WEIGHT_BITS,
        accum_bits=_WIDE_ACCUM_BITS,
        budget=n_codes,
        max_span=2**_WIDE_ACCUM_BITS - 1,
    )
