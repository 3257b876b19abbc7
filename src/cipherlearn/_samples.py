"""Training rows: weights with exact meaning, and samples that no order of the rows biases."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["merge_duplicates", "sample_rows"]


def merge_duplicates(
    X: NDArray, y: NDArray, sample_weight: NDArray
) -> tuple[NDArray, NDArray, NDArray]:
    """Drop rows of weight 0 and merge equal rows, adding their weights.

    Repeating a row and weighting it then give the very same training data, in the same
    order, so that stochastic training treats them identically. Rows of equal weight keep their
    order; others are put in an order that does not depend on how often each was repeated.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
    sample_weight : ndarray of shape (n_samples,)
        Weights of at least 0.

    Returns
    -------
    X, y, sample_weight : ndarray
        The distinct rows, and weights with mean 1.

    Examples
    --------
    >>> import numpy as np
    >>> from cipherlearn._samples import merge_duplicates
    >>> X, y, w = merge_duplicates(np.array([[5.], [5.], [7.]]), np.array([1, 1, 0]), np.ones(3))
    >>> X.ravel(), y, w
    (array([7., 5.]), array([0, 1]), array([0.66666667, 1.33333333]))
    """
    kept = sample_weight > 0
    X, y, sample_weight = X[kept], y[kept], sample_weight[kept]
    rows = np.column_stack([X, y.reshape(len(y), -1).astype(np.float64)])
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    sample_weight = np.bincount(inverse.ravel(), weights=sample_weight)
    if np.ptp(sample_weight) == 0:
        order = np.argsort(first)
    else:
        # np.unique sorts, so a split without shuffling would be biased: shuffle by a fixed rule.
        order = np.random.RandomState(0).permutation(len(first))
    sample_weight = sample_weight[order]
    return X[first][order], y[first][order], sample_weight / sample_weight.mean()


def sample_rows(n_rows: int, n_wanted: int) -> NDArray[np.int64]:
    """Choose rows at random, always the same ones: their order may mean something.

    Examples
    --------
    >>> from cipherlearn._samples import sample_rows
    >>> sample_rows(3, 9)
    array([0, 1, 2])
    >>> len(sample_rows(100, 9))
    9
    """
    if n_rows <= n_wanted:
        return np.arange(n_rows)
    return np.sort(np.random.RandomState(0).permutation(n_rows)[:n_wanted])
