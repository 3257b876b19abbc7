"""Checks and conversion of features: arrays, frames and sparse matrices.

This module does not import scikit-learn, since clients need none. SciPy is imported for sparse
matrices only, so that a client of dense rows starts faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "as_csr",
    "as_floats",
    "check_features",
    "dense_rows",
    "is_sparse",
    "refusing_overflow",
]

_TOO_LARGE = "Input X contains infinity or a value too large for dtype('float64')."


def is_sparse(X: Any) -> bool:
    """Return whether features are a sparse matrix or array of SciPy."""
    return hasattr(X, "tocsr")


def as_csr(X: Any) -> Any:
    """Convert to canonical CSR form: ascending columns, no duplicates, no stored 0.

    The argument is not changed. A sparse array becomes a matrix, whose rows are matrices too.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> from cipherlearn._features import as_csr
    >>> X = csr_array(([1.0, 2.0, 0.0, 4.0], [1, 1, 0, 0], [0, 2, 4]), shape=(2, 2))
    >>> as_csr(X).data
    array([3., 4.])
    """
    if X.ndim != 2:
        raise ValueError(
            f"Expected 2D array, got {X.ndim}D sparse array instead. Give a matrix of one row per "
            "sample."
        )
    from scipy.sparse import csr_matrix

    X = csr_matrix(X.tocsr())
    if not X.has_canonical_format or not X.data.all():
        X = X.copy()
        X.sum_duplicates()
        X.eliminate_zeros()
    return X


def dense_rows(X: Any, rows: Any) -> NDArray:
    """Select rows of an array or tensor, or of a sparse matrix as a dense array.

    Examples
    --------
    >>> from scipy.sparse import csr_matrix
    >>> from cipherlearn._features import dense_rows
    >>> dense_rows(csr_matrix([[0, 1], [2, 0], [0, 3]]), [2, 0])
    array([[0, 3],
           [0, 1]])
    """
    selected = X[rows]
    return selected.toarray() if is_sparse(selected) else selected


@contextmanager
def refusing_overflow() -> Iterator[None]:
    """Raise ValueError where an integer is beyond the range of floats."""
    try:
        yield
    except OverflowError as error:
        raise ValueError(_TOO_LARGE) from error


def as_floats(X: Any) -> Any:
    """Return features as float64, dense or in CSR, or raise ValueError or TypeError.

    Examples
    --------
    >>> from cipherlearn._features import as_floats
    >>> as_floats([[1, "2"], [None, True]])
    array([[ 1.,  2.],
           [nan,  1.]])
    """
    if is_sparse(X):
        X = as_csr(X)
    elif hasattr(X, "__array__"):
        values = np.asarray(X)
        if values.dtype == object and hasattr(X, "iloc"):
            # pandas.NA is not a float.
            values = X.to_numpy(dtype=object, na_value=np.nan)
        X = values
    if getattr(X, "dtype", np.dtype(object)).kind == "c":
        raise ValueError(f"Complex data not supported. Got {X.dtype} in X.")
    with refusing_overflow():
        return X.astype(np.float64) if is_sparse(X) else np.asarray(X, dtype=np.float64)


def check_features(X: Any, n_features: int) -> Any:
    """Return finite float64 features of at least one row, or raise what scikit-learn raises."""
    X = as_floats(X)
    if X.ndim < 2:
        raise ValueError(
            f"Expected 2D array, got {X.ndim}D array instead. Give a row for each sample: "
            "X.reshape(1, -1) of a single one."
        )
    if X.ndim > 2:
        raise ValueError(f"Found array with dim {X.ndim}, while dim <= 2 is required.")
    if X.shape[0] == 0:
        raise ValueError(f"Found array with 0 sample(s) (shape={X.shape}). At least 1 is required.")
    if X.shape[1] != n_features:
        raise ValueError(
            f"X has {X.shape[1]} features, but the model is expecting {n_features} features as "
            "input."
        )
    values = X.data if is_sparse(X) else X
    if np.isnan(values).any():
        raise ValueError("Input X contains NaN. Impute missing values before.")
    if np.isinf(values).any():
        raise ValueError(_TOO_LARGE)
    return X
