"""An estimator and a client of it refuse the same rows, for the same reason."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cipherlearn.deployment import FHEClient, export

X = np.arange(12.0).reshape(3, 4)


def with_value(value):
    """Objects, of which one is this."""
    rows = X.astype(object)
    rows[1, 2] = value
    return rows


NOT_A_NUMBER = r"float\(\) argument must be a string or a real number"
TOO_LARGE = r"Input X contains infinity or a value too large for dtype\('float64'\)"

INVALID = {
    "complex numbers": (X + 1j, ValueError, "Complex data not supported"),
    "a complex frame": (pd.DataFrame(X + 1j), ValueError, "Complex data not supported"),
    "a complex list": ((X + 1j).tolist(), TypeError, "complex"),
    "a complex object": (with_value(1j), TypeError, NOT_A_NUMBER),
    "a sparse complex matrix": (sp.csr_matrix(X + 1j), ValueError, "Complex data not supported"),
    "no rows": (X[:0], ValueError, r"Found array with 0 sample\(s\) \(shape=\(0, 4\)\)"),
    "no sparse rows": (sp.csr_matrix(X[:0]), ValueError, r"Found array with 0 sample\(s\)"),
    "a frame without rows": (pd.DataFrame(X[:0]), ValueError, r"Found array with 0 sample\(s\)"),
    "an empty list": ([], ValueError, "Expected 2D array, got 1D array"),
    "an integer beyond floats": (with_value(10**400), ValueError, TOO_LARGE),
    "a list with such an integer": ([[-(10**400), 1, 2, 3]], ValueError, TOO_LARGE),
    "infinity": (with_value(np.inf), ValueError, TOO_LARGE),
    "minus infinity": (np.where(X > 2, -np.inf, X), ValueError, TOO_LARGE),
    "sparse infinity": (sp.csr_matrix(np.where(X > 2, np.inf, X)), ValueError, TOO_LARGE),
    "entries that sum to infinity": (
        sp.csr_matrix(([1e308, 1e308], [1, 1], [0, 2]), shape=(1, 4)),
        ValueError,
        TOO_LARGE,
    ),
    "NaN": (np.where(X > 2, np.nan, X), ValueError, "Input X contains NaN"),
    "sparse NaN": (sp.coo_array(np.where(X > 2, np.nan, X)), ValueError, "Input X contains NaN"),
    "None": (with_value(None), ValueError, "Input X contains NaN"),
    "a missing value of pandas": (
        pd.DataFrame(X).astype("Int64").mask(X > 9),
        ValueError,
        "Input X contains NaN",
    ),
    "words": ([["red", "1", "2", "3"]], ValueError, "could not convert string to float: 'red'"),
    "a word": (with_value("red"), ValueError, "could not convert string to float: 'red'"),
    "a text": ("red", ValueError, "could not convert string to float: 'red'"),
    "a date": (with_value(datetime.date(2020, 1, 1)), TypeError, NOT_A_NUMBER),
    "a dict": ({"a": 1}, TypeError, NOT_A_NUMBER),
    "too few columns": (X[:, :3], ValueError, r"X has 3 features, but .* is expecting 4 features"),
    "too many columns": (np.hstack([X, X]), ValueError, "X has 8 features, but .* expecting 4"),
    "too few sparse columns": (sp.csc_matrix(X[:, :3]), ValueError, "X has 3 features, but"),
    "no columns": (np.empty((3, 0)), ValueError, r"0 feature"),
    "a vector": (X[0], ValueError, "Expected 2D array, got 1D array"),
    "a list of numbers": (X[0].tolist(), ValueError, "Expected 2D array, got 1D array"),
    "a number": (3.0, ValueError, "Expected 2D array, got"),
    "nothing": (None, ValueError, "Expected 2D array, got"),
    "three dimensions": (X[None], ValueError, "Found array with dim 3"),
    "rows of different lengths": (
        [[1, 2], [1, 2, 3]],
        ValueError,
        "setting an array element with a sequence",
    ),
}


@pytest.mark.parametrize(("rows", "error", "message"), INVALID.values(), ids=INVALID)
def test_an_estimator_and_its_client_refuse_the_same_rows(
    rows, error, message, deployed_linear, linear_client
):
    for predict in (
        deployed_linear.predict,
        lambda rows: deployed_linear.predict_proba(rows, execute_in_fhe=True),
        linear_client.encrypt,
        lambda rows: linear_client.predict(rows, transport=iter),
    ):
        with pytest.raises(error, match=message):
            predict(rows)


@pytest.mark.parametrize(
    "rows",
    [
        X.astype(str),
        X.astype(bytes),
        X > 3,
        X.astype(np.float32),
        X.tolist(),
        with_value("1e3"),
        with_value(10**300),
        pd.DataFrame(X).astype("Int64"),
        pd.DataFrame(X).astype(int),
        pd.DataFrame(X).astype("category"),
        pd.DataFrame(X, columns=list("abcd")),
        sp.csr_matrix(X),
        sp.coo_array(X),
        sp.lil_matrix(X > 3),
    ],
    ids=lambda rows: type(rows).__name__,
)
@pytest.mark.filterwarnings("ignore:X has feature names")
def test_an_estimator_and_its_client_read_the_same_numbers(rows, deployed_linear, linear_client):
    codes = deployed_linear.program_.quantize(deployed_linear._check_features(rows))
    np.testing.assert_array_equal(linear_client._quantize(rows), codes)


def test_a_fit_refuses_integers_beyond_floats(deployed_linear):
    with pytest.raises(ValueError, match=TOO_LARGE):
        clone(deployed_linear).fit(with_value(10**400), [0, 1, 0])


def test_preprocessing_that_overflows_is_invalid_input_too(tmp_path, deployed_linear):
    pipe = make_pipeline(StandardScaler(), clone(deployed_linear)).fit(X, [0, 1, 0])
    pipe[-1].compile()
    export(pipe, tmp_path, n_test_rows=1)
    client = FHEClient(tmp_path / "client.zip")
    client.generate_keys()
    with pytest.raises(ValueError, match=TOO_LARGE):
        client.encrypt(with_value(10**400))
    with pytest.raises(ValueError, match="Complex data not supported"):
        client.encrypt(X + 1j)
