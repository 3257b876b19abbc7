"""Conversion of rows to codes, the first step of a client."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn._exceptions import ArtefactError
from cipherlearn._features import check_features, refusing_overflow
from cipherlearn._guarded_zip import refusing_damage
from cipherlearn.deployment.artefacts._contents import ClientModel
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
        Types in the preprocessing that may be loaded besides scikit-learn's own.
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
                X = self._preprocessing.transform(X)
        elif columns is not None and names is not None and list(columns) != names:
            raise ValueError(
                f"The feature names should match those of the training data, {names}. "
                f"Got {list(columns)}."
            )
        quantizer = self._model.quantizer
        return quantizer(check_features(X, quantizer.n_features))
