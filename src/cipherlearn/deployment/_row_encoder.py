"""Conversion of rows to codes, the first step of a client."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn._exceptions import ArtefactError
from cipherlearn._features import check_features, is_sparse, refusing_overflow
from cipherlearn._guarded_zip import refusing_damage
from cipherlearn.deployment.artefacts._contents import ClientModel
from cipherlearn.deployment.artefacts._fitted_values import check_sparse
from cipherlearn.deployment.artefacts._preprocessing import load_preprocessing

__all__ = ["RowEncoder"]


# Errors of scikit-learn's steps for rows that they do not take. Any other is a fault of the step.
_ERRORS_OF_ROWS = (OverflowError, TypeError, ValueError)


class RowEncoder:
    """Applies a model's preprocessing and its quantizer to rows.

    Parameters
    ----------
    model : ClientModel
    trusted : sequence of str
        Types and functions in the preprocessing that may be loaded besides the listed ones.
    """

    def __init__(self, model: ClientModel, trusted: Sequence[str]) -> None:
        self._model = model
        self._trusted = tuple(trusted)

    @cached_property
    def _preprocessing(self) -> Any:
        # Loaded at its first use, since keys can be made without it.
        return load_preprocessing(self._model.preprocessing, self._trusted)

    def __call__(self, X: Any) -> NDArray[np.int64]:
        columns = getattr(X, "columns", None)
        names = self._model.description["feature_names"]
        if self._preprocessing is not None:
            n_rows = _n_rows(X)
            # Its steps check the names themselves.
            with (
                refusing_overflow(),
                refusing_damage(
                    ArtefactError,
                    "The steps before the network must take rows, or raise TypeError or "
                    "ValueError. They raised",
                    "Get client.zip again, or mend the step.",
                    passing=_ERRORS_OF_ROWS,
                ),
            ):
                X = self._preprocessing.transform(_copied(X))
                _check_table(X, n_rows, self._model.quantizer.n_features)
        elif columns is not None and names is not None and list(columns) != names:
            raise ValueError(
                f"The feature names should match those of the training data, {names}. "
                f"Got {list(columns)}."
            )
        quantizer = self._model.quantizer
        return quantizer(check_features(X, quantizer.n_features))


def _copied(X: Any) -> Any:
    """Return a copy of rows, to which steps may write, or whatever else cannot be copied."""
    copy = getattr(X, "copy", None) or getattr(X, "clone", None)
    return copy() if callable(copy) else X


def _n_rows(X: Any) -> int | None:
    """Return the number of rows, or None of what has no length, which steps refuse."""
    shape = getattr(X, "shape", None)
    try:
        return int(shape[0]) if shape else len(X)
    except TypeError:
        return None


def _check_table(X: Any, n_rows: int | None, n_features: int) -> None:
    """Check what steps gave, or raise ArtefactError.

    The number of ciphertexts is that of the rows, and would tell the server what steps put in it.
    """
    if is_sparse(X):
        try:
            check_sparse(X)
        except ValueError as error:
            raise _not_a_table(str(error), n_rows, n_features) from error
    elif not isinstance(X, np.ndarray) and not hasattr(X, "iloc"):
        raise _not_a_table(f"a {type(X).__name__}", n_rows, n_features)
    if X.shape != (n_rows, n_features):
        raise _not_a_table(f"the shape {X.shape}", n_rows, n_features)


def _not_a_table(got: str, n_rows: int | None, n_features: int) -> ArtefactError:
    return ArtefactError(
        f"The steps before the network must give a table of {n_rows} rows, as many as they took, "
        f"and {n_features} columns. Got {got:.200}. Get client.zip again, or mend the step."
    )
