"""Training rows: merging of equal rows by weight, and samples in a fixed random order."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn._features import as_csr, is_sparse

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
    X : ndarray or sparse matrix of shape (n_samples, n_features)
        A sparse one gives the same rows, in the same order, as the dense array.
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
    sample_weight : ndarray of shape (n_samples,)
        Weights of at least 0.

    Returns
    -------
    X : ndarray or sparse matrix
        The distinct rows.
    y, sample_weight : ndarray
        Their targets, and weights with mean 1.

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
    targets = y.reshape(len(y), -1).astype(np.float64)
    if is_sparse(X):
        X = as_csr(X)
        _, first, inverse = np.unique(_keys(X, targets), return_index=True, return_inverse=True)
    else:
        rows = np.column_stack([X, targets])
        _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    sample_weight = np.bincount(inverse.ravel(), weights=sample_weight)
    if np.ptp(sample_weight) == 0:
        order = np.argsort(first)
    else:
        # np.unique sorts, which would bias a split without shuffling: shuffle with a fixed seed.
        order = np.random.RandomState(0).permutation(len(first))
    sample_weight = sample_weight[order]
    first = first[order]
    return X[first], y[first], sample_weight / sample_weight.mean()


def _keys(X: Any, targets: NDArray) -> NDArray:
    """Make a key of bytes for each sparse row and its targets, in the order of the dense rows.

    Where two rows first differ, one may have a 0 that is not stored. A stored value is greater if
    it is positive, the more so the further left, and less if it is negative.
    """
    n_rows, n_features = X.shape
    row = np.repeat(np.arange(n_rows), np.diff(X.indptr))
    columns = X.indices.astype(np.int64)
    n_last = 1 + targets.shape[1]
    # Two words for each stored value, then one for the end of the row and one for each target.
    words = np.empty(2 * X.nnz + n_rows * n_last, dtype=">u8")
    place = 2 * np.arange(X.nnz) + row * n_last
    words[place] = np.where(X.data < 0, columns, 2 * n_features - columns)
    words[place + 1] = _ordered(X.data)
    ends = 2 * X.indptr.astype(np.int64) + np.arange(n_rows + 1) * n_last
    last = ends[1:, None] - n_last + np.arange(n_last)
    words[last[:, 0]] = n_features
    words[last[:, 1:]] = _ordered(targets)
    content = words.tobytes()
    keys = np.empty(n_rows, dtype=object)
    keys[:] = [content[8 * start : 8 * stop] for start, stop in pairwise(ends.tolist())]
    return keys


def _ordered(values: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Map floats to integers in the same order. Both zeros map to one integer."""
    bits = (values.astype(np.float64) + 0.0).view(np.uint64)
    sign = np.uint64(1 << 63)
    return np.where(bits & sign, ~bits, bits | sign)


def sample_rows(n_rows: int, n_wanted: int) -> NDArray[np.int64]:
    """Draw rows at random with a fixed seed, since data may be sorted.

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
