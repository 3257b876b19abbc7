"""How many weights each neuron has, of those that it may have."""

# The same with any engine.
# engine: concrete-python

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn._words import neurons
from cipherlearn.inspection._axes import axes_grid
from cipherlearn.inspection._fitted import find_network
from cipherlearn.training._layer_limits import layer_limits

__all__ = ["WeightBudgetDisplay"]


class WeightBudgetDisplay:
    """Non-zero weights of each neuron against its budget, a panel for each layer.

    A neuron has two limits. The budget bounds the number of its weights. In layers whose sums
    have a width of their own, ``module__n_hidden_accum_bits`` or ``module__n_output_accum_bits``,
    or with ``module__budget="l1"``, the width of its sum is bounded too. Dots show it on the
    right axis, which is scaled so that the dashed line is the limit of both. A neuron whose bar
    or dot is at the line is full. An orange line is of widths alone.

    Neurons, and what they read, are those in the program, which leaves out what cannot change an
    output. Where neurons were left out, the title says how many were trained.

    Use :meth:`from_estimator` to make one.

    Parameters
    ----------
    layer_names : sequence of str
        Name of each layer.
    n_weights : sequence of array-like of shape (n_neurons,)
        Non-zero weights of each neuron of each layer.
    budgets : sequence of int or None
        How many it may have. None where there is no limit.
    widths : sequence of array-like of shape (n_neurons,)
        Difference between the largest and smallest possible sum of each neuron.
    max_widths : sequence of int or None
        Its limit. None where there is none.
    n_trained : sequence of int, default=None
        Neurons of each layer that were trained, of which the program may have fewer.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, of shape (1, n_layers)
    figure_ : matplotlib Figure
    bars_ : list of matplotlib BarContainer
        Weights of each layer.
    dots_ : list of matplotlib Line2D or None
        Widths of each layer, scaled to the left axis.
    lines_ : list of matplotlib Line2D or None
        Limit of each layer.

    See Also
    --------
    AccumulatorDisplay : The bits that these sums need.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from cipherlearn import NeuralNetClassifier
    >>> from cipherlearn.inspection import WeightBudgetDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = NeuralNetClassifier(max_epochs=10, random_state=0).fit(X, y)
    >>> display = WeightBudgetDisplay.from_estimator(clf)
    >>> max(bar.get_height() for bar in display.bars_[0]) <= clf.module_.budgets[0]
    True
    """

    def __init__(
        self,
        *,
        layer_names: Sequence[str],
        n_weights: Sequence[NDArray],
        budgets: Sequence[int | None],
        widths: Sequence[NDArray],
        max_widths: Sequence[int | None],
        n_trained: Sequence[int] | None = None,
    ) -> None:
        self.layer_names = layer_names
        self.n_weights = n_weights
        self.budgets = budgets
        self.widths = widths
        self.max_widths = max_widths
        self.n_trained = n_trained

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None):
        """Count the weights of a fitted estimator, and draw them.

        Parameters
        ----------
        estimator : NeuralNetClassifier, NeuralNetRegressor, Pipeline or search
            Fitted. A pipeline ends in one of the former, a search has found one.
        ax : matplotlib Axes or array-like of Axes, default=None
            Where to draw: in the place of one axes, or on one for each layer. None makes a new
            figure.

        Returns
        -------
        WeightBudgetDisplay
        """
        network = find_network(estimator)
        limits, program = layer_limits(network), network.program_
        # Without pruning, or with a bound on widths instead, a neuron may read every input.
        prunes = getattr(network.module_, "pruning", False)
        budgets = [
            None if not prunes or budget == n_inputs else budget
            for n_inputs, budget in zip(limits.n_inputs, limits.budgets, strict=True)
        ]
        display = cls(
            layer_names=program.layer_names,
            n_weights=[np.count_nonzero(layer.weights, axis=1) for layer in program.layers],
            budgets=budgets,
            widths=[layer.high - layer.low for layer in program.layers],
            max_widths=limits.max_spans,
            n_trained=limits.n_neurons,
        )
        return display.plot(ax=ax)

    def plot(self, ax: Any = None):
        """Draw a panel for each layer.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of Axes, default=None
            Where to draw: in the place of one axes, or on one for each layer. None makes a new
            figure.

        Returns
        -------
        WeightBudgetDisplay
        """
        self.axes_ = axes_grid(ax, 1, len(self.layer_names), (3.6 * len(self.layer_names) + 0.6, 4))
        self.figure_ = self.axes_[0, 0].figure
        self.bars_, self.dots_, self.lines_ = [], [], []
        in_program = [len(counts) for counts in self.n_weights]
        trained = in_program if self.n_trained is None else self.n_trained
        panels = zip(
            self.axes_[0],
            self.layer_names,
            self.n_weights,
            self.budgets,
            self.widths,
            self.max_widths,
            map(neurons, in_program, trained),
            strict=True,
        )
        for panel, name, counts, budget, widths, max_width, counted in panels:
            numbers = np.arange(len(counts))
            self.bars_.append(panel.bar(numbers, counts, color="C0", alpha=0.8))
            line = dots = None
            # Where only widths are bounded, no bar may seem to reach their limit.
            limit = 1.3 * max(1, *counts) if budget is None else budget
            if max_width is not None:
                scale = limit / max_width
                (dots,) = panel.plot(numbers, widths * scale, "o", color="C1", markersize=4)
                right = panel.secondary_yaxis(
                    "right", functions=(lambda y, s=scale: y / s, lambda y, s=scale: y * s)
                )
                right.set_ylabel("width of the sum", color="C1")
                right.tick_params(colors="C1")
            if budget is not None or max_width is not None:
                line = panel.axhline(limit, color="C1" if budget is None else "C3", linestyle="--")
            self.dots_.append(dots)
            self.lines_.append(line)
            panel.set_xlim(-0.75, len(counts) - 0.25)
            panel.set_ylim(0, 1.12 * max(limit, *counts))
            for axis in (panel.xaxis, panel.yaxis):
                axis.get_major_locator().set_params(integer=True, min_n_ticks=1)
            title = f"{name}: {counted}\n{_limits(budget, max_width)}"
            panel.set(title=title, xlabel="neuron")
        self.axes_[0, 0].set_ylabel("non-zero weights", color="C0")
        return self


def _limits(budget: int | None, max_width: int | None) -> str:
    limits = []
    if budget is not None:
        limits.append(f"{budget} weights")
    if max_width is not None:
        limits.append(f"width {max_width}")
    return f"limit: {', '.join(limits)}" if limits else "no limit"
