"""Search for the network that predicts encrypted rows fastest at nearly the best score."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from joblib import effective_n_jobs
from sklearn.base import is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV, ParameterGrid, check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import check_is_fitted

from cipherlearn._html import ShowsState, html_table, panel, paragraphs
from cipherlearn._progress import progress_bar, say
from cipherlearn._unwrap import final_network
from cipherlearn._words import count
from cipherlearn.inspection._latency_display import LatencyDisplay, frontier
from cipherlearn.model_selection._scoring import EncryptedPredictions

__all__ = ["EncryptedSearchCV"]

# An additive model, which needs no bootstrap, and networks of few narrow ones to many wider.
_GRID: list[dict[str, list]] = [
    {"n_layers": [1], "n_w_bits": [5], "n_accum_bits": [12], "budget": ["l1"]},
    {
        "n_layers": [2],
        "n_hidden_neurons": [4, 8, 16, 32],
        "n_hidden_accum_bits": [4, 5],
        "n_output_accum_bits": [6],
    },
]


# Choices of a fitted search that its repr lists.
_LISTED = 8


class EncryptedSearchCV(ShowsState, GridSearchCV):
    """Cross-validated search that weighs accuracy against encrypted latency.

    It is scikit-learn's grid search. Each candidate is scored in the clear and its encrypted
    latency is estimated, per row. The winner is fitted on all data and compiled.

    Parameters
    ----------
    estimator : NeuralNetClassifier, NeuralNetRegressor or Pipeline that ends in one
        What to configure. It is cloned.
    param_grid : dict or list of dict, default=None
        Values to try, as for ``GridSearchCV``. None tries a model of one layer, which
        needs no bootstrap, and 4 to 32 hidden neurons with accumulators of 4 and 5 bits.
    max_seconds : float or None, default=None
        Largest latency of a row. Of the candidates within it the best wins. With None
        ``tolerance`` decides.
    tolerance : float, default=0.01
        How much score to give up at most: the fastest candidate wins whose mean score is within
        ``tolerance`` of the best one's.
    compile_options : dict or None, default=None
        Arguments of ``compile``. A list of values is searched over, as in
        ``{"rounding": ["exact", "approximate"], "p_error": [2**-40, 2**-20]}``. Where they let
        results differ from the clear ones, predictions are scored as simulated.
    scoring : str, callable or None, default=None
        One score, as for ``GridSearchCV``. None takes the estimator's own.
    n_jobs : int or None, default=None
        Fits at a time. Latencies are measured while others run, so leave it at None to trust
        them.
    cv : int, splitter or iterable, default=None
        How to split. None makes 5 folds.
    verbose : int, default=0
        With 1 a progress bar over the fits is shown, with more also scikit-learn's lines.

    Attributes
    ----------
    best_estimator_ : estimator
        The winner, fitted on all data and compiled.
    best_params_, best_compile_options_ : dict
        Its parameters, and the arguments that it was compiled with.
    best_score_, best_seconds_ : float
        Its mean score, and its estimated latency per row, both over the folds.
    scores_, seconds_ : ndarray of shape (n_candidates, n_compile_options)
        Both for all.
    cv_results_ : dict of arrays
        As ``GridSearchCV`` has it.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import ShuffleSplit
    >>> from cipherlearn import EncryptedSearchCV, NeuralNetClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = NeuralNetClassifier(
    ...     module__n_hidden_accum_bits=3,
    ...     module__n_output_accum_bits=4,
    ...     module__n_w_bits=2,
    ...     max_epochs=10,
    ...     random_state=0,
    ... )
    >>> split = ShuffleSplit(1, random_state=0)
    >>> search = EncryptedSearchCV(clf, {"module__n_layers": [1, 2]}, tolerance=0.02, cv=split)
    >>> labels = search.fit(X, y).predict(X[:2], execute_in_fhe=True)
    >>> bool((labels == search.predict(X[:2])).all())
    True
    """

    def __init__(
        self,
        estimator,
        param_grid=None,
        *,
        max_seconds=None,
        tolerance=0.01,
        compile_options=None,
        scoring=None,
        n_jobs=None,
        cv=None,
        verbose=0,
    ):
        super().__init__(
            estimator, param_grid, scoring=scoring, n_jobs=n_jobs, cv=cv, verbose=verbose
        )
        self.max_seconds = max_seconds
        self.tolerance = tolerance
        self.compile_options = compile_options

    def fit(self, X, y=None, **params):
        """Search, then fit and compile the winner.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels or targets.
        **params
            Passed on to ``fit`` of the estimator.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If no candidate is fast enough, or a parameter is out of range.
        """
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise ValueError(f"max_seconds must be above 0, or None. Got {self.max_seconds!r}.")
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance must be at least 0. Got {self.tolerance!r}.")
        options = list(
            ParameterGrid(
                {
                    name: value if isinstance(value, list | tuple) else [value]
                    for name, value in (self.compile_options or {}).items()
                }
            )
        )
        # Given as a list, so that every candidate has the same.
        splitter = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        grid = _GridSearchWithProgress(
            self.estimator,
            self._default_grid() if self.param_grid is None else self.param_grid,
            scoring=_Scores(check_scoring(self.estimator, self.scoring), options),
            refit=self._choose,
            n_jobs=self.n_jobs,
            cv=[*splitter.split(X, y, params.pop("groups", None))],
            verbose=max(0, self.verbose - 1),
            error_score="raise",
        )
        grid.shows_progress = self.verbose > 0
        grid.fit(X, y, **params)
        fitted = {k: v for k, v in vars(grid).items() if k.endswith("_") and not k.startswith("_")}
        vars(self).update(fitted)
        self.multimetric_, self.scorer_ = False, check_scoring(self.estimator, self.scoring)
        self._compile_options = options
        best = self.best_index_, self._best_option
        self.best_score_, self.best_seconds_ = self.scores_[best], self.seconds_[best]
        self.best_compile_options_ = options[self._best_option]
        options = {"verbose": self.verbose or None, **self.best_compile_options_}
        final_network(self.best_estimator_).compile(**options)
        return self

    def __repr__(self, N_CHAR_MAX=700) -> str:
        parameters = super().__repr__(N_CHAR_MAX)
        if not hasattr(self, "best_index_"):
            return parameters
        rows = self._choices()
        lines = [f"{row[1]} s a row, score {row[2]}: {row[3]} {row[0]}".rstrip() for row in rows]
        if len(lines) > _LISTED:
            lines[_LISTED:] = [f"and {len(lines) - _LISTED} more"]
        return "\n".join([parameters, self._summary(), *(f"  {line}" for line in lines)])

    def _state_html(self) -> str:
        if not hasattr(self, "best_index_"):
            return panel("Not fitted", "")
        table = html_table(("", "s a row", "score", "candidate"), self._choices())
        return panel("Fitted", paragraphs([self._summary()]) + table)

    def _summary(self) -> str:
        return (
            f"{count(self.scores_.size, 'choice')}, of which these are on the frontier: "
            "no faster one scores as well."
        )

    def _choices(self) -> list[tuple[str, str, str, str]]:
        """List the frontier from the fastest on, and the winner: mark, seconds, score, values."""
        seconds, scores = self.seconds_.ravel(), self.scores_.ravel()
        best = int(np.ravel_multi_index((self.best_index_, self._best_option), self.scores_.shape))
        shown = sorted({*frontier(seconds, scores).tolist(), best}, key=lambda i: seconds[i])
        n_options = self.scores_.shape[1]
        rows = []
        for i in shown:
            candidate, option = divmod(i, n_options)
            values = dict(self.cv_results_["params"][candidate])
            if n_options > 1:
                values |= self._compile_options[option]
            text = ", ".join(f"{name}={value!r}" for name, value in values.items())
            mark = "(chosen)" if i == best else ""
            rows.append((mark, f"{seconds[i]:.3g}", f"{scores[i]:.4g}", text))
        return rows

    def predict(self, X, **params):
        """Predict with the winner.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.
        **params
            Passed on, such as ``execute_in_fhe=True``.

        Returns
        -------
        ndarray
        """
        check_is_fitted(self)
        return self.best_estimator_.predict(X, **params)

    def plot_frontier(self, ax: Any = None) -> Any:
        """Draw score against latency for every candidate, with the frontier and the winner.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.

        Returns
        -------
        matplotlib Axes

        See Also
        --------
        cipherlearn.inspection.LatencyDisplay : The same, with its data.
        """
        return LatencyDisplay.from_search(self, ax=ax).ax_

    def _default_grid(self) -> list[dict[str, list]]:
        step = f"{self.estimator.steps[-1][0]}__" if isinstance(self.estimator, Pipeline) else ""
        return [
            {f"{step}module__{name}": values for name, values in grid.items()} for grid in _GRID
        ]

    def _choose(self, cv_results: dict[str, Any]) -> int:
        scores, seconds = (
            np.stack([v for k, v in cv_results.items() if k.startswith(f"mean_test_{name}_")], 1)
            for name in ("score", "seconds")
        )
        self.scores_, self.seconds_ = scores, seconds
        if self.max_seconds is None:
            allowed = scores >= scores.max() - self.tolerance
            best = np.where(allowed, seconds, np.inf).argmin()
        else:
            allowed = seconds <= self.max_seconds
            if not allowed.any():
                raise ValueError(
                    f"No candidate predicts a row in max_seconds={self.max_seconds:g}. The fastest "
                    f"takes {seconds.min():.3g} s. Raise it, or add smaller networks to "
                    "param_grid."
                )
            best = np.where(allowed, scores, -np.inf).argmax()
        candidate, self._best_option = map(int, np.unravel_index(best, scores.shape))
        how = f"score {scores.flat[best]:.4g}, about {seconds.flat[best]:.3g} s a row"
        say(
            f"Candidate {candidate + 1} of {len(scores)} wins: {how}. Fitting it on all rows.",
            self.verbose,
        )
        return candidate


class _GridSearchWithProgress(GridSearchCV):
    """A grid search over given splits, with a bar over its fits."""

    shows_progress = False

    def _run_search(self, evaluate_candidates, **context) -> None:
        candidates, show = [*ParameterGrid(self.param_grid)], self.shows_progress
        # As many at a time as all jobs finish together, if fits take equally long.
        n_folds = len(self.cv)
        size = math.lcm(effective_n_jobs(self.n_jobs), n_folds) // n_folds
        size = size if show else len(candidates)
        title = f"Fits of {len(candidates)} candidates"
        with progress_bar(n_folds * len(candidates), title, "fit", show) as progress:
            self.scoring.progress = progress
            for start in range(0, len(candidates), size):
                chunk = candidates[start : start + size]
                evaluate_candidates(chunk)
                # Those in other processes were not counted.
                progress.update(n_folds * (start + len(chunk)) - progress.n)


class _Scores:
    """Multi-metric scorer: a score and the estimated seconds of a row, for each way to compile."""

    def __init__(self, scorer, options: list[dict[str, Any]]) -> None:
        self._scorer = scorer
        self._options = options
        self.progress: Any = None

    def __getstate__(self) -> dict[str, Any]:
        # A bar stays in its process.
        return vars(self) | {"progress": None}

    def get_metadata_routing(self):
        return get_routing_for_object(self._scorer)

    def __call__(self, estimator, X, y=None, **params) -> dict[str, float]:
        network = final_network(estimator)
        metrics: dict[str, float] = {}
        clear_score = self._scorer(estimator, X, y, **params)
        for i, options in enumerate(self._options):
            score = clear_score
            if options.keys() - {"batch_size", "verbose"}:
                network.compile(**options)
                score = self._scorer(EncryptedPredictions(estimator, "simulate"), X, y, **params)
            cost = network.estimate(**{k: v for k, v in options.items() if k != "verbose"})
            metrics |= {f"score_{i}": score, f"seconds_{i}": cost.seconds_per_row}
        if self.progress is not None:
            self.progress.update()
        return metrics
