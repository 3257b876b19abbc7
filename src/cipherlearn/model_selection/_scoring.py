"""Scores of predictions on ciphertexts."""

from __future__ import annotations

from functools import wraps
from typing import Any

from sklearn.base import ClassifierMixin, RegressorMixin, is_classifier
from sklearn.metrics import check_scoring, get_scorer
from sklearn.utils import resample
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import check_is_fitted

from cipherlearn._checks import check_execute_in_fhe, check_int
from cipherlearn._unwrap import final_network

__all__ = ["EncryptedPredictions", "make_fhe_scorer"]


def make_fhe_scorer(
    scoring=None, *, execute_in_fhe=True, max_rows=None, random_state=None, **compile_options
):
    """Make a scorer that predicts on encrypted rows.

    For ``cross_val_score``, ``cross_validate`` and searches, whose estimators are new in each fold:
    the scorer compiles those that are not compiled. They are networks, Pipelines that end in one,
    or what wraps these and passes ``execute_in_fhe`` on to ``predict``: a ``FrozenEstimator`` or an
    :class:`~cipherlearn.EncryptedSearchCV`.

    Parameters
    ----------
    scoring : str, callable or None, default=None
        A score, as ``cross_val_score`` takes it. ``None`` takes the estimator's own.
    execute_in_fhe : bool or "simulate", default=True
        As for ``predict``.
    max_rows : int or None, default=None
        Largest number of rows to predict, drawn at random if there are more, in the proportions
        of their classes. Each takes its time. Scores that need every class need enough rows.
    random_state : int, RandomState instance or None, default=None
        Seed of that draw.
    **compile_options
        Arguments of ``compile``. With any, an estimator that is compiled already is compiled
        again.

    Returns
    -------
    callable
        With the signature ``scorer(estimator, X, y)``.

    Raises
    ------
    ValueError
        If ``scoring`` is no score, ``execute_in_fhe`` no way to predict, or ``max_rows`` below 1.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import cross_val_score
    >>> from cipherlearn import NeuralNetClassifier, make_fhe_scorer
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = NeuralNetClassifier(module__n_layers=1, max_epochs=20, random_state=0)
    >>> scorer = make_fhe_scorer("balanced_accuracy", max_rows=5, random_state=0)
    >>> cross_val_score(clf, X, y, scoring=scorer, cv=2).shape
    (2,)
    """
    if isinstance(scoring, str):
        get_scorer(scoring)
    if max_rows is not None:
        check_int("max_rows", max_rows, 1)
    execute_in_fhe = check_execute_in_fhe(execute_in_fhe)
    return _FHEScorer(scoring, execute_in_fhe, max_rows, random_state, compile_options)


class _FHEScorer:
    def __init__(self, scoring, execute_in_fhe, max_rows, random_state, compile_options) -> None:
        self._scoring = scoring
        self._execute_in_fhe = execute_in_fhe
        self._max_rows = max_rows
        self._random_state = random_state
        self._compile_options = compile_options

    def __call__(self, estimator, X, y=None, **params) -> float:
        check_is_fitted(estimator)
        network = final_network(estimator)
        needs_circuit = self._execute_in_fhe is not False and not hasattr(network, "circuit_")
        if self._compile_options or needs_circuit:
            network.compile(**self._compile_options)
        X, y, params = self._draw(estimator, X, y, params)
        scorer = check_scoring(estimator, self._scoring)
        return scorer(EncryptedPredictions(estimator, self._execute_in_fhe), X, y, **params)

    def get_metadata_routing(self):
        """Request the metadata that the score requests, such as weights."""
        return get_routing_for_object(self._scoring)

    def _draw(self, estimator, X, y, params: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
        if self._max_rows is None or n_rows <= self._max_rows:
            return X, y, params
        params = {name: values for name, values in params.items() if values is not None}
        drawn = resample(
            *(X, y, *params.values()),
            replace=False,
            n_samples=self._max_rows,
            random_state=self._random_state,
            stratify=y if is_classifier(estimator) else None,
        )
        return drawn[0], drawn[1], dict(zip(params, drawn[2:], strict=True))


class EncryptedPredictions:
    """A compiled estimator whose predictions are made by its circuit.

    Parameters
    ----------
    estimator : estimator or Pipeline
    execute_in_fhe : bool or "simulate"
        As for ``predict``.
    """

    def __init__(self, estimator, execute_in_fhe: bool | str) -> None:
        self._estimator = estimator
        self._execute_in_fhe = execute_in_fhe

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._estimator, name)
        if name not in ("predict", "predict_proba"):
            return attribute

        # scikit-learn's scorers read the name of the method that they call.
        @wraps(attribute)
        def predict(X, **params):
            return attribute(X, execute_in_fhe=self._execute_in_fhe, **params)

        return predict

    def score(self, X, y, sample_weight=None) -> float:
        mixin = ClassifierMixin if is_classifier(self._estimator) else RegressorMixin
        return mixin.score(self, X, y, sample_weight)
