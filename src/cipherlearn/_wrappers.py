"""Networks within pipelines, searches and other estimators of scikit-learn."""

from __future__ import annotations

from typing import Any

from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

__all__ = ["unwrapped"]


def unwrapped(model: Any) -> list[Any]:
    """Return the model, what it wraps, what that wraps, and so on, down to one estimator."""
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
                # A search that has found nothing yet.
                check_is_fitted(outer)
            return parts
