"""What accuracy costs on ciphertexts."""

# The same with any engine.
# engine: concrete-python

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import check_scoring
from sklearn.utils.validation import check_is_fitted

from cipherlearn.inspection._axes import one_axes
from cipherlearn.inspection._fitted import find_network

__all__ = ["LatencyDisplay", "frontier"]


class LatencyDisplay:
    """Score against the time of an encrypted row, with the frontier of the best choices.

    A model is on the frontier if no faster one scores as well.

    Use :meth:`from_search` or :meth:`from_estimators` to make one.

    Parameters
    ----------
    seconds : array-like of shape (n_models,)
        Time of an encrypted row.
    scores : array-like of shape (n_models,)
        Larger is better.
    names : sequence of str, default=None
        Name of each model. None leaves them nameless.
    chosen : int or None, default=None
        Index of the model to mark.
    seconds_name, score_name : str
        What the axes are called.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    points_ : list of matplotlib PathCollection
        One for all models or, if they have names, for each.
    frontier_ : matplotlib Line2D
    chosen_ : matplotlib PathCollection or None

    See Also
    --------
    cipherlearn.EncryptedSearchCV : Searches for the fastest network that scores well.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from cipherlearn import NeuralNetClassifier
    >>> from cipherlearn.inspection import LatencyDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> models = {
    ...     f"{n} neurons": NeuralNetClassifier(
    ...         module__n_hidden_neurons=n, max_epochs=10, random_state=0
    ...     ).fit(X, y)
    ...     for n in (2, 8)
    ... }
    >>> measured = {"2 neurons": 0.1, "8 neurons": 0.3}  # elsewhere
    >>> display = LatencyDisplay.from_estimators(models, X, y, seconds=measured)
    >>> display.scores == [model.score(X, y) for model in models.values()]
    True
    """

    def __init__(
        self,
        *,
        seconds: ArrayLike,
        scores: ArrayLike,
        names: Sequence[str] | None = None,
        chosen: int | None = None,
        seconds_name: str = "seconds an encrypted row",
        score_name: str = "score",
    ) -> None:
        self.seconds = seconds
        self.scores = scores
        self.names = names
        self.chosen = chosen
        self.seconds_name = seconds_name
        self.score_name = score_name

    @classmethod
    def from_search(cls, search: Any, *, ax: Any = None):
        """Draw every candidate of a fitted search, and the winner.

        Parameters
        ----------
        search : EncryptedSearchCV
            Fitted.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.

        Returns
        -------
        LatencyDisplay
        """
        # Known by its method, since nothing here imports the search.
        if not hasattr(search, "plot_frontier"):
            raise TypeError(
                "The search must be an EncryptedSearchCV, which estimates latencies. "
                f"Got {type(search).__name__}. Pass fitted models to from_estimators instead."
            )
        check_is_fitted(search)
        best = search.best_index_, search._best_option
        display = cls(
            seconds=search.seconds_.ravel(),
            scores=search.scores_.ravel(),
            chosen=int(np.ravel_multi_index(best, search.scores_.shape)),
            seconds_name="estimated seconds an encrypted row",
            score_name="mean score",
        )
        return display.plot(ax=ax)

    @classmethod
    def from_estimators(
        cls,
        estimators: Mapping[str, Any] | Sequence[Any],
        X: ArrayLike,
        y: ArrayLike,
        *,
        scoring: Any = None,
        seconds: Mapping[str, float] | Sequence[float] | None = None,
        ax: Any = None,
    ):
        """Score fitted models in the clear, and draw them.

        Parameters
        ----------
        estimators : dict or list of estimators
            Fitted. The keys of a dict are their names.
        X : array-like of shape (n_samples, n_features)
            Rows to score on.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels or targets.
        scoring : str, callable or None, default=None
            One score, as for ``cross_val_score``. None takes the estimator's own.
        seconds : dict or list of float, default=None
            Time of an encrypted row of each, by name or in their order, as measured. None takes
            ``estimate().seconds_per_row``, with the options of ``compile`` where that was called.
            It times small circuits first, for some seconds.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.

        Returns
        -------
        LatencyDisplay

        Raises
        ------
        ValueError
            If ``seconds`` are not of these models, or not above 0.
        """
        if isinstance(estimators, Mapping):
            names: list[str] | None = list(estimators)
            models = list(estimators.values())
        else:
            names, models = None, list(estimators)
        if not models:
            raise ValueError("estimators must hold at least one model. Got none.")
        if seconds is None:
            given = [_estimated_seconds(model) for model in models]
        elif isinstance(seconds, Mapping) and names is not None and seconds.keys() == set(names):
            given = [float(seconds[name]) for name in names]
        elif not isinstance(seconds, Mapping) and len(seconds) == len(models):
            given = [float(value) for value in seconds]
        else:
            raise ValueError(
                "seconds must hold one time for each estimator, in their order or by their "
                f"names, {names or f'of which there are none for {len(models)}'}. Got {seconds!r}."
            )
        if not all(value > 0 for value in given):
            raise ValueError(f"seconds must be above 0. Got {given}.")
        display = cls(
            seconds=given,
            scores=[check_scoring(model, scoring)(model, X, y) for model in models],
            names=names,
            seconds_name=f"{'estimated ' if seconds is None else ''}seconds an encrypted row",
            score_name=scoring if isinstance(scoring, str) else "score",
        )
        return display.plot(ax=ax)

    def plot(self, ax: Any = None):
        """Draw score against latency.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.

        Returns
        -------
        LatencyDisplay
        """
        ax = one_axes(ax)
        from matplotlib.ticker import LogLocator, NullFormatter

        seconds, scores = np.asarray(self.seconds), np.asarray(self.scores)
        best = frontier(seconds, scores)
        if self.names is None:
            self.points_ = [ax.scatter(seconds, scores, color="0.6", label="candidates")]
        else:
            markers = ["o", "s", "^", "D"]
            self.points_ = [
                ax.scatter(x, y, s=60, color=f"C{i % 10}", marker=markers[i // 10 % 4], label=name)
                for i, (x, y, name) in enumerate(zip(seconds, scores, self.names, strict=True))
            ]
        (self.frontier_,) = ax.step(
            seconds[best],
            scores[best],
            where="post",
            color="C0" if self.names is None else "0.6",
            label="frontier",
            zorder=0.5,
        )
        self.chosen_ = None
        if self.chosen is not None:
            chosen = seconds[self.chosen], scores[self.chosen]
            self.chosen_ = ax.scatter(
                *chosen, marker="*", s=200, color="C3", label="chosen", zorder=3
            )
        ax.set(xlabel=self.seconds_name, ylabel=self.score_name)
        # As scikit-learn's displays do: over a small range, a logarithmic axis has too few ticks.
        if seconds.max() > 5 * seconds.min():
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_formatter(NullFormatter())
        ax.margins(0.08)
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _estimated_seconds(model: Any) -> float:
    network = find_network(model)
    options = network.circuit_.options if hasattr(network, "circuit_") else {}
    return network.estimate(**options).seconds_per_row


def frontier(seconds: NDArray, scores: NDArray) -> NDArray[np.intp]:
    """Return the indices of models that score better than every faster one, fastest first.

    Examples
    --------
    >>> import numpy as np
    >>> from cipherlearn.inspection._latency_display import frontier
    >>> frontier(np.array([3.0, 1.0, 2.0]), np.array([0.9, 0.7, 0.6]))
    array([1, 0])
    """
    order = np.lexsort((-scores, seconds))
    is_best_yet = np.diff(np.maximum.accumulate(scores[order]), prepend=-np.inf) > 0
    return order[is_best_yet]
