"""Networks within pipelines, searches and other estimators of scikit-learn."""

from __future__ import annotations

from typing import Any

from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

__all__ = ["final_network", "unwrapped"]


def unwrapped(model: Any) -> list[Any]:
    """Return the chain of estimators from a model through all its wrappers to the innermost one."""
    parts = [model]
    while True:
        outer = parts[-1]
        if isinstance(outer, Pipeline):
            parts.append(outer.steps[-1][1])
        elif isinstance(outer, FrozenEstimator):
            parts.append(outer.estimator)
        elif hasattr(outer, "best_estimator_"):
            parts.append(outer.best_estimator_)
        else:
            if hasattr(outer, "estimator"):
                # A search that is not fitted.
                check_is_fitted(outer)
            return parts


def final_network(model: Any) -> Any:
    """Return the network inside a model, or raise TypeError."""
    network = unwrapped(model)[-1]
    # Recognized by a method, since this module must not import the estimators.
    if not callable(getattr(network, "compile", None)):
        raise TypeError(
            "The estimator must be a NeuralNetClassifier or NeuralNetRegressor, a Pipeline that "
            f"ends in one, or a fitted search for one. Got {type(model).__name__}"
            f"{'' if network is model else f' of {type(network).__name__}'}. "
            "Pass the estimator itself."
        )
    return network
