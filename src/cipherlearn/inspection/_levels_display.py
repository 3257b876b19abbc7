"""Which integers the weights and the codes of a network are."""

# The same with any engine.
# engine: concrete-python

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cipherlearn.inspection._axes import axes_grid
from cipherlearn.inspection._fitted import find_network, network_inputs
from cipherlearn.training._layer_limits import layer_limits

__all__ = ["IntegerLevelsDisplay"]

# As many levels are labelled one by one.
_FEW_LEVELS = 9


class IntegerLevelsDisplay:
    """Integer weights of each layer at their levels and, with rows, the codes that it reads.

    A layer is a column: its weights above, its input codes below. Weights are those of
    ``program_``, so of what is computed on ciphertexts. Zeros have no bar, since they are most:
    the title says how many. Levels that no weight has, or codes that no row gives, are bits that
    the layer does not use.

    Use :meth:`from_estimator` to make one.

    Parameters
    ----------
    layer_names : sequence of str
        Name of each layer.
    weight_levels : sequence of array-like of shape (n_levels,)
        Ascending integers that a weight may be, for each layer.
    weight_counts : sequence of array-like of shape (n_levels,)
        Weights at each level, for each layer.
    code_levels : array-like of shape (n_codes,), default=None
        Ascending integers that a code may be.
    code_counts : array-like of shape (n_layers, n_codes), default=None
        Inputs of each layer at each code, over some rows.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, of shape (1 or 2, n_layers)
    figure_ : matplotlib Figure
    weight_bars_ : list of matplotlib BarContainer
        Non-zero weights of each layer.
    code_bars_ : list of matplotlib BarContainer
        Percentages of each layer's input codes. Empty without rows.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from cipherlearn import NeuralNetClassifier
    >>> from cipherlearn.inspection import IntegerLevelsDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = NeuralNetClassifier(max_epochs=10, random_state=0).fit(X, y)
    >>> display = IntegerLevelsDisplay.from_estimator(clf, X)
    >>> display.weight_levels[0]
    array([-3, -2, -1,  0,  1,  2,  3])
    >>> sum(bar.get_height() for bar in display.weight_bars_[0]) == np.count_nonzero(
    ...     clf.program_.layers[0].weights
    ... )
    True
    """

    def __init__(
        self,
        *,
        layer_names: Sequence[str],
        weight_levels: Sequence[NDArray],
        weight_counts: Sequence[NDArray],
        code_levels: NDArray | None = None,
        code_counts: NDArray | None = None,
    ) -> None:
        self.layer_names = layer_names
        self.weight_levels = weight_levels
        self.weight_counts = weight_counts
        self.code_levels = code_levels
        self.code_counts = code_counts

    @classmethod
    def from_estimator(cls, estimator: Any, X: ArrayLike | None = None, *, ax: Any = None):
        """Count the integers of a fitted estimator, and draw them.

        Parameters
        ----------
        estimator : NeuralNetClassifier, NeuralNetRegressor, Pipeline or search
            Fitted. A pipeline ends in one of the former, a search has found one.
        X : array-like of shape (n_samples, n_features), default=None
            Rows whose codes are counted, in the clear.
        ax : matplotlib Axes or array-like of Axes, default=None
            Where to draw: in the place of one axes, or on one for each panel. None makes a new
            figure.

        Returns
        -------
        IntegerLevelsDisplay
        """
        network = find_network(estimator)
        program = network.program_
        largest = layer_limits(network).max_levels
        weight_levels = [np.arange(-level, level + 1) for level in largest]
        code_levels = code_counts = None
        if X is not None:
            codes = program.quantize(network_inputs(estimator, X))
            code_levels = np.arange(1 + max(layer.input_high.max() for layer in program.layers))
            read = (inputs for _, inputs, _ in program.trace(codes.T))
            code_counts = np.stack([_counts(inputs, code_levels) for inputs in read])
        display = cls(
            layer_names=program.layer_names,
            weight_levels=weight_levels,
            weight_counts=[
                _counts(layer.weights, levels)
                for layer, levels in zip(program.layers, weight_levels, strict=True)
            ],
            code_levels=code_levels,
            code_counts=code_counts,
        )
        return display.plot(ax=ax)

    def plot(self, ax: Any = None):
        """Draw a column of panels for each layer.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of Axes, default=None
            Where to draw: in the place of one axes, or on one for each panel. None makes a new
            figure.

        Returns
        -------
        IntegerLevelsDisplay
        """
        n_layers, n_rows = len(self.layer_names), 1 if self.code_counts is None else 2
        self.axes_ = axes_grid(ax, n_rows, n_layers, (3.2 * n_layers + 0.6, 3.2 * n_rows))
        self.figure_ = self.axes_[0, 0].figure
        self.weight_bars_, self.code_bars_ = [], []
        top = zip(
            self.axes_[0], self.layer_names, self.weight_levels, self.weight_counts, strict=True
        )
        for panel, name, levels, counts in top:
            levels, counts = np.asarray(levels), np.asarray(counts)
            is_zero = levels == 0
            # Many levels are lines of a histogram, without gaps.
            width = 0.8 if len(levels) <= _FEW_LEVELS else 1.0
            self.weight_bars_.append(
                panel.bar(levels[~is_zero], counts[~is_zero], width, color="C0")
            )
            zeros, total = int(counts[is_zero].sum()), int(counts.sum())
            panel.set_title(f"{name}\n{zeros} of {total} are 0")
            panel.set_xlabel("weight")
            _integer_ticks(panel, levels)
        self.axes_[0, 0].set_ylabel("weights")
        if self.code_counts is not None:
            codes = np.asarray(self.code_levels)
            for panel, counts in zip(self.axes_[1], np.asarray(self.code_counts), strict=True):
                percent = 100 * counts / max(1, counts.sum())
                self.code_bars_.append(panel.bar(codes, percent, color="C1"))
                panel.set_xlabel("input code")
                _integer_ticks(panel, codes)
            self.axes_[1, 0].set_ylabel("% of the codes")
        return self


def _counts(values: NDArray, levels: NDArray) -> NDArray:
    return np.bincount(np.ravel(values) - levels[0], minlength=len(levels))


def _integer_ticks(panel: Any, levels: NDArray) -> None:
    """Label levels by integers, all of them if they are few."""
    if len(levels) <= _FEW_LEVELS:
        panel.set_xticks(levels)
    else:
        panel.xaxis.get_major_locator().set_params(integer=True)
    panel.set_xlim(levels[0] - 0.7, levels[-1] + 0.7)
    panel.yaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
