"""How many bits sums have, need and use."""

# The same with any engine.
# engine: concrete-python

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cipherlearn._words import count
from cipherlearn.inspection._axes import one_axes
from cipherlearn.inspection._fitted import find_network, network_inputs
from cipherlearn.inspection._report import observed_widths
from cipherlearn.training._layer_limits import layer_limits

__all__ = ["AccumulatorDisplay"]


class AccumulatorDisplay:
    """Bits of each layer's sums: allowed, proven and observed.

    The *headroom* is the gap between a bar and its limit. No input whatever can leave the proven
    range, so the gap above it is what more or larger weights could still use. The gap between
    proven and observed is what the data do not use.

    Use :meth:`from_estimator` to make one.

    Parameters
    ----------
    layer_names : sequence of str
        Name of each layer.
    limit_bits : array-like of shape (n_layers,)
        Bits that sums may have.
    proven_widths : array-like of shape (n_layers,)
        Largest difference between two sums of the same neuron, over all possible inputs. A width
        of ``w`` needs ``w.bit_length()`` bits.
    observed_widths : array-like of shape (n_layers,), default=None
        The same over some rows.
    table_bits : array-like of shape (n_layers,), default=None
        Bits that a layer's tables see, where rounding removes some: else those of its sums.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    bars_ : list of matplotlib BarContainer
        Proven and, if there are any, observed bits.
    removed_bars_ : matplotlib BarContainer or None
        The part of the proven bits that rounding removes.
    limits_ : matplotlib LineCollection

    See Also
    --------
    WeightBudgetDisplay : What fills the sums.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from cipherlearn import NeuralNetClassifier
    >>> from cipherlearn.inspection import AccumulatorDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = NeuralNetClassifier(max_epochs=10, random_state=0).fit(X, y)
    >>> display = AccumulatorDisplay.from_estimator(clf, X)
    >>> [bar.get_height() for bar in display.bars_[0]] == [
    ...     layer.n_accum_bits for layer in clf.program_.layers
    ... ]
    True
    """

    def __init__(
        self,
        *,
        layer_names: Sequence[str],
        limit_bits: ArrayLike,
        proven_widths: ArrayLike,
        observed_widths: ArrayLike | None = None,
        table_bits: ArrayLike | None = None,
    ) -> None:
        self.layer_names = layer_names
        self.limit_bits = limit_bits
        self.proven_widths = proven_widths
        self.observed_widths = observed_widths
        self.table_bits = table_bits

    @classmethod
    def from_estimator(cls, estimator: Any, X: ArrayLike | None = None, *, ax: Any = None):
        """Measure the sums of a fitted estimator, and draw them.

        Parameters
        ----------
        estimator : NeuralNetClassifier, NeuralNetRegressor, Pipeline or search
            Fitted. A pipeline ends in one of the former, a search has found one.
        X : array-like of shape (n_samples, n_features), default=None
            Rows on which sums are observed, in the clear.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.

        Returns
        -------
        AccumulatorDisplay
        """
        network = find_network(estimator)
        program = network.program_
        observed = None
        if X is not None:
            observed = observed_widths(program, network_inputs(estimator, X))
        display = cls(
            layer_names=program.layer_names,
            limit_bits=layer_limits(network).accum_bits,
            proven_widths=[int((layer.high - layer.low).max()) for layer in program.layers],
            observed_widths=observed,
            table_bits=[layer.n_table_bits for layer in program.layers],
        )
        return display.plot(ax=ax)

    def plot(self, ax: Any = None):
        """Draw the bits of each layer.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.

        Returns
        -------
        AccumulatorDisplay
        """
        n_layers = len(self.layer_names)
        ax = one_axes(ax, figsize=(max(6.5, 1.4 + 2.0 * n_layers), 4))
        at = np.arange(n_layers)
        limit_bits = np.asarray(self.limit_bits)
        kinds = {"proven, for every possible input": np.asarray(self.proven_widths)}
        if self.observed_widths is not None:
            kinds["observed on X"] = np.asarray(self.observed_widths)
        width = 0.8 / len(kinds)
        self.bars_ = []
        for i, ((label, widths), ink) in enumerate(
            zip(kinds.items(), ("white", "black"), strict=False)
        ):
            bits = _n_bits(widths)
            x = at + (i - (len(kinds) - 1) / 2) * width
            bars = ax.bar(x, bits, 0.92 * width, label=label, color=f"C{i}", alpha=0.85)
            # Beside the 16 bits of a wide path, a low bar has room for one line.
            texts = [
                count(b, "bit") + (f"\nwidth {w}" if 8 * b > limit_bits.max() else "")
                for b, w in zip(bits.tolist(), widths, strict=True)
            ]
            ax.bar_label(bars, texts, label_type="center", fontsize="small", color=ink)
            self.bars_.append(bars)
        self.removed_bars_ = self._plot_removed(ax, width)
        self.limits_ = ax.hlines(
            limit_bits, at - 0.45, at + 0.45, colors="C3", linewidth=2, label="limit"
        )
        for x, bits in zip(at, limit_bits, strict=True):
            text = f"{count(int(bits), 'bit')}, width {2**bits - 1}"
            ax.annotate(
                text, (x, bits), (0, 3), textcoords="offset points", ha="center", color="C3"
            )
        ax.set_xticks(at, self.layer_names)
        ax.set_xlim(-0.6, n_layers - 0.4)
        # Room for the text above the highest limit.
        ax.set_ylim(0, 1.1 * limit_bits.max() + 0.4)
        ax.yaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        ax.set_ylabel("bits of a sum")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _plot_removed(self, ax: Any, width: float) -> Any:
        proven = _n_bits(self.proven_widths)
        seen = proven if self.table_bits is None else np.asarray(self.table_bits)
        if (seen >= proven).all():
            return None
        return ax.bar(
            [bar.get_x() + bar.get_width() / 2 for bar in self.bars_[0]],
            proven - seen,
            0.92 * width,
            bottom=seen,
            facecolor="C0",
            edgecolor="white",
            hatch="///",
            linewidth=0,
            label="of these, rounded away before the table",
        )


def _n_bits(widths: ArrayLike) -> Any:
    return np.array([max(1, int(width).bit_length()) for width in np.asarray(widths)])
