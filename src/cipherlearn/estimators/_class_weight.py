"""Weights of classes, which become weights of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["weights_of_classes"]


def weights_of_classes(
    class_weight: Any,
    criterion_weight: Any,
    classes: NDArray,
    indices: NDArray[np.int64],
    sample_weight: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the weight of each class.

    Parameters
    ----------
    class_weight : dict, "balanced" or None
        As in scikit-learn.
    criterion_weight : array-like of shape (n_classes,), "balanced" or None
        The same under torch's name. At most one of the two may be given.
    classes : ndarray of shape (n_classes,)
        The labels.
    indices : ndarray of shape (n_samples,)
        Class of each row.
    sample_weight : ndarray of shape (n_samples,)
        What a row counts in the frequency of its class.

    Returns
    -------
    ndarray of shape (n_classes,)

    Examples
    --------
    >>> import numpy as np
    >>> from cipherlearn.estimators._class_weight import weights_of_classes
    >>> classes, indices = np.array(["no", "yes"]), np.array([0, 0, 0, 1])
    >>> weights_of_classes("balanced", None, classes, indices, np.ones(4))
    array([0.66666667, 2.        ])
    >>> weights_of_classes({"yes": 5}, None, classes, indices, np.ones(4))
    array([1., 5.])
    """
    name, given = "class_weight", class_weight
    if criterion_weight is not None:
        if class_weight is not None:
            raise ValueError(
                "Classes must be weighted once. Got both class_weight and criterion__weight. "
                "Set one of them to None."
            )
        name, given = "criterion__weight", criterion_weight
    if isinstance(given, str) and given == "balanced":
        return _balanced(np.bincount(indices, sample_weight, minlength=len(classes)))
    if given is None:
        return np.ones(len(classes))
    if name == "class_weight":
        if not isinstance(given, dict):
            raise ValueError(f'class_weight must be a dict, "balanced" or None. Got {given!r}.')
        labels = classes.tolist()
        if unknown := [label for label in given if label not in labels]:
            raise ValueError(
                f"class_weight must weigh classes of y, which has {labels}. Got also {unknown}."
            )
        weights = np.asarray([given.get(label, 1.0) for label in labels])
        if weights.dtype.kind not in "iuf":
            raise ValueError(f"class_weight must hold a number for each class. Got {given!r}.")
    else:
        if isinstance(given, str):
            raise ValueError(
                f'criterion__weight must be an array, "balanced" or None. Got {given!r}.'
            )
        weights = np.asarray(given)
        if weights.shape != classes.shape or weights.dtype.kind not in "iuf":
            raise ValueError(
                f"criterion__weight needs one number for each of the {len(classes)} classes "
                f"{classes}. Got {given!r}."
            )
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(f"{name} must hold finite numbers of at least 0. Got {given!r}.")
    return weights.astype(np.float64)


def _balanced(counts: NDArray) -> NDArray[np.float64]:
    """Weigh each class inversely to its frequency, and one without rows by 1."""
    weights = np.ones(len(counts))
    np.divide(counts.sum(), np.count_nonzero(counts) * counts, out=weights, where=counts > 0)
    return weights
