"""How training went."""

# The same with any engine.
# engine: concrete-python

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cipherlearn.inspection._axes import one_axes
from cipherlearn.inspection._fitted import find_network

__all__ = ["TrainingHistoryDisplay"]

# What a history holds besides scores.
_NO_SCORES = {"epoch", "dur"}
_NO_SCORE_ENDINGS = ("_best", "_loss", "_batch_count")

# As the schedule of training records it. Histories of earlier versions do not say.
_PHASE_OF = {False: "float", True: "quantized", None: ""}

_PHASES = {
    "float": ("float warm-up, sparsity grows", "0.85"),
    "quantized": ("quantized fine-tuning", "#cfe8cf"),
}


class TrainingHistoryDisplay:
    """Losses of each epoch, with the phases of the schedule shaded, and scores if there are any.

    The training losses of the two phases are not of the same targets: fine-tuning mixes the float
    network's outputs into them. Validation losses, with ``train_split``, are.

    Use :meth:`from_estimator` to make one.

    Parameters
    ----------
    losses : mapping of str to array-like of shape (n_epochs,)
        Curves by name.
    scores : mapping of str to array-like of shape (n_epochs,), default=None
        Curves that get an axis of their own, on the right.
    phases : sequence of str of shape (n_epochs,), default=None
        "float" or "quantized" for each epoch, "" where that is not known.

    Attributes
    ----------
    ax_ : matplotlib Axes
    score_ax_ : matplotlib Axes or None
        The one of the scores.
    figure_ : matplotlib Figure
    lines_ : dict of str to matplotlib Line2D
        Losses and scores by name.
    spans_ : list of matplotlib Polygon
        One for each run of epochs of the same phase.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from cipherlearn import NeuralNetClassifier
    >>> from cipherlearn.inspection import TrainingHistoryDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = NeuralNetClassifier(max_epochs=10, random_state=0).fit(X, y)
    >>> display = TrainingHistoryDisplay.from_estimator(clf)
    >>> list(display.lines_), display.phases.count("float")
    (['train loss'], 4)
    """

    def __init__(
        self,
        *,
        losses: Mapping[str, ArrayLike],
        scores: Mapping[str, ArrayLike] | None = None,
        phases: Sequence[str] | None = None,
    ) -> None:
        self.losses = losses
        self.scores = scores
        self.phases = phases

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None):
        """Read the history of a fitted estimator, and draw it.

        Parameters
        ----------
        estimator : NeuralNetClassifier, NeuralNetRegressor, Pipeline or search
            Fitted. A pipeline ends in one of the former, a search has found one.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.

        Returns
        -------
        TrainingHistoryDisplay
        """
        epochs = list(find_network(estimator).history)
        # A set would lose the order in which the history names them.
        names = list(dict.fromkeys(name for epoch in epochs for name in epoch))

        def curves(chosen: list[str]) -> dict[str, np.ndarray]:
            return {
                name.replace("_", " "): np.array([row.get(name, np.nan) for row in epochs], float)
                for name in chosen
            }

        numeric = [
            name
            for name in names
            if all(isinstance(row.get(name, 0.0), Real) for row in epochs)
            and not name.startswith("event_")
        ]
        display = cls(
            losses=curves([name for name in numeric if name.endswith("_loss")]),
            scores=curves(
                [
                    name
                    for name in numeric
                    if not name.endswith(_NO_SCORE_ENDINGS) and name not in _NO_SCORES
                ]
            ),
            phases=[_PHASE_OF[row.get("event_quantized")] for row in epochs],
        )
        return display.plot(ax=ax)

    def plot(self, ax: Any = None):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.

        Returns
        -------
        TrainingHistoryDisplay
        """
        ax = one_axes(ax, figsize=(7, 4))
        self.spans_ = self._plot_phases(ax)
        self.lines_ = {}
        for i, (name, values) in enumerate(self.losses.items()):
            self.lines_[name] = _plot_curve(ax, name, values, f"C{i}")
        ax.set(xlabel="epoch", ylabel="loss")
        if all(np.nanmin(values) >= 0 for values in self.losses.values()):
            ax.set_ylim(bottom=0)
        self.score_ax_ = None
        if self.scores:
            self.score_ax_ = ax.twinx()
            self.score_ax_.set_ylabel("score")
            for i, (name, values) in enumerate(self.scores.items(), len(self.losses)):
                line = _plot_curve(self.score_ax_, name, values, f"C{i}", linestyle="--")
                self.lines_[name] = line
        named = [span for span in self.spans_ if not span.get_label().startswith("_")]
        handles = [*self.lines_.values(), *named]
        ax.legend(
            handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False
        )
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _plot_phases(self, ax: Any) -> list[Any]:
        spans, start, named = [], 1, set()
        for phase, run in groupby(self.phases or ()):
            stop = start + len(list(run))
            if phase in _PHASES:
                label, color = _PHASES[phase]
                # A name that starts with an underscore is not in the legend.
                label = f"_{label}" if phase in named else label
                named.add(phase)
                spans.append(ax.axvspan(start - 0.5, stop - 0.5, color=color, label=label, lw=0))
            start = stop
        return spans


def _plot_curve(ax: Any, name: str, values: ArrayLike, color: str, **style: Any) -> Any:
    epochs = np.arange(1, len(np.asarray(values)) + 1)
    (line,) = ax.plot(epochs, values, color=color, label=name, **style)
    ax.set_xlim(0.5, max(1, len(epochs)) + 0.5)
    return line
