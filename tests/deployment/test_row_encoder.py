"""Preprocessing gives a row for each row, or nothing is encrypted."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.preprocessing import FunctionTransformer

from cipherlearn.deployment import ArtefactError
from cipherlearn.deployment._row_encoder import RowEncoder
from cipherlearn.deployment.artefacts._preprocessing import dump_preprocessing

X = np.arange(8.0).reshape(4, 2)


class Quantizer:
    n_features = 2

    def __call__(self, X):
        return np.asarray(X.todense() if scipy.sparse.issparse(X) else X, dtype=np.int64)


def as_they_are(rows):
    return rows


def in_place(rows):
    rows *= 0
    return rows


def as_frame(rows):
    return pd.DataFrame(rows)


def as_csr(rows):
    return scipy.sparse.csr_matrix(rows)


def as_objects(rows):
    return np.asarray(rows, dtype=object)


def as_many_as_a_value(rows):
    return np.zeros((int(rows[1, 0]), 2))


def fewer_columns(rows):
    return rows[:, :1]


def one_number(rows):
    return np.float64(3)


def vector(rows):
    return rows[:, 0]


def a_list(rows):
    return rows.tolist()


def as_coo(rows):
    return scipy.sparse.coo_matrix(rows)


def outside(rows):
    matrix = scipy.sparse.csr_matrix(rows)
    matrix.indices[0] = 10**6
    return matrix


def encoder_of(function):
    trusted = [f"{__name__}.{function.__name__}"]
    content = dump_preprocessing(FunctionTransformer(function), trusted)
    description = {"feature_names": None}
    model = SimpleNamespace(preprocessing=content, quantizer=Quantizer(), description=description)
    return RowEncoder(model, trusted)


@pytest.mark.parametrize("function", [as_they_are, as_frame, as_csr, as_objects])
def test_a_row_for_each_row_is_encoded(function):
    np.testing.assert_array_equal(encoder_of(function)(X), X)


@pytest.mark.parametrize(
    "function",
    [as_many_as_a_value, fewer_columns, one_number, vector, a_list, as_coo, outside],
)
def test_other_results_are_refused(function):
    with pytest.raises(ArtefactError, match="must give a table of 4 rows"):
        encoder_of(function)(X)


@pytest.mark.parametrize("kind", [np.array, pd.DataFrame, scipy.sparse.csr_matrix])
def test_rows_of_the_caller_are_not_changed(kind):
    rows = kind(X)
    assert not encoder_of(in_place)(rows).any()
    np.testing.assert_array_equal(rows.toarray() if hasattr(rows, "toarray") else rows, X)
