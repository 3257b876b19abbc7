"""Sparse features give the networks and the predictions of the dense array, in less memory."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from cases import TINY, needs_concrete_python
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from skorch.dataset import ValidSplit

from cipherlearn import NeuralNetClassifier, NeuralNetRegressor
from cipherlearn._features import as_csr
from cipherlearn._samples import merge_duplicates
from cipherlearn.inspection._report import observed_widths
from cipherlearn.nn._components import PrincipalComponents
from cipherlearn.nn._encoder import InputEncoder, fit_encoders
from cipherlearn.program._encoder import InputQuantizer

FORMATS = {
    "csr_matrix": sp.csr_matrix,
    "csc_matrix": sp.csc_matrix,
    "coo_array": sp.coo_array,
    "csr_array": sp.csr_array,
    "lil_matrix": sp.lil_matrix,
}


def one_hot(n_rows: int = 80, seed: int = 0):
    """Rows of two categories and a number, all sparse, and labels that follow from them."""
    rng = np.random.default_rng(seed)
    categories = rng.integers(0, (4, 3), (n_rows, 2))
    number = np.round(rng.normal(size=(n_rows, 1)) * rng.integers(0, 2, (n_rows, 1)), 3)
    X = np.hstack([np.eye(4)[categories[:, 0]], np.eye(3)[categories[:, 1]], number])
    return X, (categories[:, 0] + (number[:, 0] > 0)) % 2


def small(**parameters):
    return NeuralNetClassifier(**{**TINY, "max_epochs": 4, **parameters})


def same_network(a, b) -> bool:
    layers = zip(a.program_.layers, b.program_.layers, strict=True)
    same = [np.array_equal(left.weights, right.weights) for left, right in layers]
    a, b = a.program_, b.program_
    same.append(np.array_equal(a.quantizer.thresholds, b.quantizer.thresholds))
    same.append(np.array_equal(a.quantizer.feature, b.quantizer.feature))
    return all(same) and np.array_equal(a.scaler.gain, b.scaler.gain)


# ---------------------------------------------------------------------- training


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
def test_a_network_is_the_same_whatever_holds_the_features(make):
    X, y = one_hot()
    dense = small().fit(X, y)
    sparse = small().fit(make(X), y)
    assert same_network(sparse, dense)
    np.testing.assert_array_equal(sparse.predict_proba(make(X)), dense.predict_proba(X))
    assert sparse.score(make(X), y) == dense.score(X, y)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.int8, bool])
def test_other_numbers_are_those_of_the_dense_array(dtype):
    X, y = one_hot()
    X = X.astype(dtype)
    assert same_network(small().fit(sp.csr_matrix(X), y), small().fit(X, y))


@pytest.mark.parametrize(
    "parameters",
    [
        {"train_split": ValidSplit(3)},
        {"train_split": ValidSplit(3), "iterator_train__num_workers": 0},
        {"iterator_train__num_workers": 0, "iterator_valid__num_workers": 0},
        {"batch_size": -1},
        {"module__n_layers": 1, "module__threshold_placement": "quantile"},
    ],
    ids=["split", "split and loader", "loader", "one batch", "one layer"],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_training_options_work_as_with_dense_features(parameters, weighted):
    X, y = one_hot()
    weight = np.arange(len(y)) % 3 if weighted else None
    dense = small(**parameters).fit(X, y, sample_weight=weight)
    sparse = small(**parameters).fit(sp.csr_matrix(X), y, sample_weight=weight)
    assert same_network(sparse, dense)
    if "train_split" in parameters:
        assert sparse.history[:, "valid_loss"] == dense.history[:, "valid_loss"]


def test_a_regressor_of_several_targets_takes_sparse_features():
    X, y = one_hot()
    targets = np.column_stack([y, X[:, -1]])
    dense = NeuralNetRegressor(**TINY).fit(X, targets)
    sparse = NeuralNetRegressor(**TINY).fit(sp.csr_array(X), targets)
    np.testing.assert_array_equal(sparse.predict(sp.csr_array(X)), dense.predict(X))


def test_further_training_and_pruning_take_sparse_features():
    X, y = one_hot()
    dense, sparse = small().fit(X, y), small().fit(sp.csc_array(X), y)
    assert same_network(sparse.partial_fit(sp.coo_matrix(X), y), dense.partial_fit(X, y))
    assert same_network(sparse.prune(sp.csr_matrix(X), y, 0.5), dense.prune(X, y, 0.5))


def test_a_frame_of_sparse_columns_is_taken_as_it_is():
    X, y = one_hot()
    frame = pd.DataFrame.sparse.from_spmatrix(sp.csr_matrix(X)).add_prefix("x")
    clf = small().fit(frame, y)
    assert clf.feature_names_in_.tolist() == list(frame.columns)
    assert same_network(clf, small().fit(X, y))


def test_unsorted_and_repeated_entries_and_stored_zeros_are_one_value():
    X = np.array([[0.0, 3.0, -1.0], [2.0, 0.0, 0.0], [0.0, 3.0, -1.0], [5.0, 0.0, 1.0]] * 3)
    y = np.array([0, 1, 0, 1] * 3)
    data = [-1.0, 1.0, 2.0, 0.0, 2.0, -0.0, 3.0, -1.0, 4.0, 1.0, 1.0] * 3
    indices = [2, 1, 1, 0, 0, 1, 1, 2, 0, 2, 0] * 3
    indptr = np.concatenate([[0], np.cumsum([4, 2, 2, 3] * 3)])
    untidy = sp.csr_matrix((data, indices, indptr), shape=X.shape)
    assert not untidy.has_sorted_indices
    assert untidy.toarray().tolist() == X.tolist()
    stored = untidy.data.copy()
    clf = small().fit(untidy, y)
    assert same_network(clf, small().fit(X, y))
    np.testing.assert_array_equal(clf.predict_proba(untidy), clf.predict_proba(X))
    np.testing.assert_array_equal(untidy.data, stored)


@given(
    rows=st.lists(
        st.lists(
            st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.5, -1e-300, 1e300]), min_size=3, max_size=3
        ),
        min_size=1,
        max_size=12,
    ),
    seed=st.integers(0, 99),
    weighted=st.booleans(),
)
def test_equal_sparse_rows_are_merged_in_the_order_of_dense_ones(rows, seed, weighted):
    X, rng = np.array(rows), np.random.default_rng(seed)
    y = rng.choice([0.0, -0.5, 2.0], (len(X), 2))
    weight = rng.integers(1, 4, len(X)).astype(float) if weighted else np.ones(len(X))
    dense = merge_duplicates(X, y, weight)
    features, *others = merge_duplicates(sp.csr_matrix(X), y, weight)
    np.testing.assert_array_equal(features.toarray(), dense[0])
    for sparse_part, dense_part in zip(others, dense[1:], strict=True):
        np.testing.assert_array_equal(sparse_part, dense_part)


@pytest.mark.parametrize("placement", ["mixed", "uniform", "quantile"])
def test_thresholds_of_sparse_columns_are_those_of_dense_ones(placement):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 4)) * (rng.random((50, 4)) < [0.0, 0.1, 0.5, 1.0])
    encoders = [InputEncoder(4, n_bits=2, n_codes=3, placement=placement) for _ in range(2)]
    none = PrincipalComponents(4, 0)
    fit_encoders(encoders[:1], none, torch.from_numpy(X))
    fit_encoders(encoders[1:], none, as_csr(sp.csr_matrix(X)))
    for name, tensor in encoders[0].named_buffers():
        assert torch.equal(tensor, dict(encoders[1].named_buffers())[name]), name


# ---------------------------------------------------------------------- prediction


def test_a_program_reads_sparse_features_by_blocks(monkeypatch):
    X, y = one_hot()
    clf = small().fit(X, y)
    program, whole = clf.program_, clf.program_(X)
    widths = observed_widths(program, X)
    monkeypatch.setattr("cipherlearn.program._encoder.BLOCK_ROWS", 7)
    monkeypatch.setattr("cipherlearn.program._encoder._BLOCK_VALUES", 20)
    np.testing.assert_array_equal(program(sp.coo_array(X)), whole)
    np.testing.assert_array_equal(program.quantize(sp.csc_matrix(X)), program.quantize(X))
    assert observed_widths(program, sp.csr_matrix(X)) == widths


def test_features_that_no_code_reads_are_left_out():
    quantizer = InputQuantizer(4, [3, 1], [[0.5, 1.5], [0.5, np.inf]])
    X = np.array([[9.0, 1.0, 9.0, 0.0], [0.0, 0.0, 0.0, 2.0]])
    assert quantizer(sp.csr_matrix(X)).tolist() == quantizer(X).tolist() == [[0, 1], [2, 0]]


def test_scikit_learn_knows_that_sparse_features_are_taken():
    assert NeuralNetClassifier().__sklearn_tags__().input_tags.sparse
    assert NeuralNetRegressor().__sklearn_tags__().input_tags.sparse


@pytest.fixture(scope="module")
def categorical():
    """A compiled pipeline whose encoder gives sparse features, and raw rows."""
    rng = np.random.default_rng(0)
    X = rng.choice(["red", "green", "blue"], (60, 2))
    linear = {**TINY, "module__n_layers": 1, "module__n_accum_bits": 8}
    pipe = make_pipeline(OneHotEncoder(), NeuralNetClassifier(**linear))
    pipe.fit(X, np.where(X[:, 0] == X[:, 1], "same", "other"))
    pipe[-1].compile(batch_size=2)
    return pipe, X


def test_rows_of_a_one_hot_encoder_are_predicted_encrypted(categorical):
    pipe, X = categorical
    assert sp.issparse(pipe[:-1].transform(X))
    clear = pipe.predict_proba(X)
    np.testing.assert_array_equal(pipe.predict_proba(X[:2], execute_in_fhe=True), clear[:2])
    np.testing.assert_array_equal(pipe.predict_proba(X, execute_in_fhe="simulate"), clear)


@needs_concrete_python("no workers")
@pytest.mark.filterwarnings("ignore::UserWarning")  # joblib on workers that stop
def test_workers_predict_sparse_rows_encrypted(categorical):
    pipe, X = categorical
    encrypted = pipe.predict(X[:4], execute_in_fhe=True, n_jobs=2)
    np.testing.assert_array_equal(encrypted, pipe.predict(X[:4]))


@needs_concrete_python("no deployment")
def test_a_client_encrypts_sparse_rows(categorical, tmp_path):
    from cipherlearn.deployment import FHEClient, FHEServer, export

    pipe, X = categorical
    features = pipe[:-1].transform(X[:2])
    export(pipe[-1], tmp_path, n_test_rows=1)
    client, server = FHEClient(tmp_path / "client.zip"), FHEServer(tmp_path / "server.zip")
    client.generate_keys()
    server.add_keys(client.evaluation_keys())
    decrypted = client.predict(features.tocoo(), server.evaluate)
    np.testing.assert_array_equal(decrypted, pipe.predict(X[:2]))


def test_reports_take_sparse_rows(categorical):
    pipe, X = categorical
    features = pipe[:-1].transform(X)
    assert pipe[-1].report(features).layers == pipe[-1].report(features.toarray()).layers


@needs_concrete_python("no skops")
def test_cards_take_sparse_rows(categorical):
    pipe, X = categorical
    card = pipe[-1].card(pipe[:-1].transform(X), pipe.predict(X)).render()
    assert "1.0000" in card
    assert "60 of 60 rows" in card


def test_cross_validation_and_searches_split_sparse_rows():
    X, y = one_hot()
    sparse = cross_val_score(small(), sp.csr_matrix(X), y, cv=2)
    assert sparse.tolist() == cross_val_score(small(), X, y, cv=2).tolist()


# ---------------------------------------------------------------------- memory

MEASURE = """
import resource
import numpy as np, scipy.sparse as sp, torch
from cipherlearn import NeuralNetClassifier

torch.set_num_threads(1)
n_rows, n_features, n_stored = 40_000, 2000, 10
rng = np.random.default_rng(0)
indices = rng.integers(0, n_features, n_rows * n_stored)
indptr = np.arange(0, len(indices) + 1, n_stored)
X = sp.csr_matrix((np.ones(len(indices)), indices, indptr), shape=(n_rows, n_features))
y = rng.integers(0, 2, n_rows)
net = NeuralNetClassifier(module__n_layers=1, max_epochs=1, batch_size=500, random_state=0)
net.fit([[0.0], [1.0]], [0, 1])

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before = peak()
net.fit(X, y).predict(X)
print((peak() - before) * 1024 / (8 * n_rows * n_features))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="units of the peak differ")
def test_the_dense_matrix_is_never_made():
    command = [sys.executable, "-c", MEASURE]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    # Part of the dense float64 matrix, which has 640 MB.
    assert float(result.stdout) < 0.4, result.stderr
