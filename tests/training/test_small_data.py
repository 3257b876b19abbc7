"""Tiny data, rare classes and a single epoch."""

from __future__ import annotations

import numpy as np
import pytest
from cases import blobs

from cipherlearn import NeuralNetClassifier, NeuralNetRegressor, SparseQuantNeuralNetImpl


@pytest.mark.parametrize(
    ("X", "y"),
    [
        pytest.param([[0.0], [1.0], [2.0], [3.0], [4.0]], [0, 0, 1, 1, 1], id="one-feature"),
        pytest.param([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0]], [0, 1, 1], id="constant-column"),
        pytest.param([[7.0, 5.0]] * 4, [0, 1, 0, 1], id="only-constant-columns"),
        pytest.param([[0.0], [1.0]], [1, 1], id="one-class"),
        pytest.param([[3.0, 4.0]], [1], id="one-row"),
        pytest.param([[1e-12], [2e-12], [3e-12]], [0, 0, 1], id="tiny-values"),
        pytest.param([[1e15], [2e15], [3e15]], [0, 0, 1], id="huge-values"),
    ],
)
def test_tiny_data_give_finite_predictions(X, y):
    clf = NeuralNetClassifier(max_epochs=3, module__n_hidden_neurons=2, random_state=0).fit(X, y)
    probabilities = clf.predict_proba(X)
    assert probabilities.shape == (len(X), len(set(y)))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    assert set(clf.predict(X)) <= set(y)


def test_five_separable_rows_are_learned():
    X, y = [[0.0], [1.0], [2.0], [3.0], [4.0]], [0, 0, 1, 1, 1]
    clf = NeuralNetClassifier(max_epochs=100, lr=0.05, module__n_hidden_neurons=4, random_state=0)
    assert clf.fit(X, y).predict(X).tolist() == y


def test_five_rows_train_with_the_default_settings():
    X, y = [[0.0], [1.0], [2.0], [3.0], [4.0]], ["a", "a", "b", "b", "b"]
    assert NeuralNetClassifier(random_state=0).fit(X, y).predict(X).tolist() == y


def test_a_rare_class_is_learned():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 4))
    y = np.where(X[:, 0] + X[:, 1] > 2.6, "rare", "common")
    assert 0.02 < np.mean(y == "rare") < 0.06
    clf = NeuralNetClassifier(max_epochs=60, random_state=0).fit(X, y)
    assert np.mean(clf.predict(X[y == "rare"]) == "rare") > 0.7


@pytest.mark.parametrize("target", [0.0, -3.5, 1e6])
def test_a_constant_target_is_predicted(target):
    X = np.arange(6.0)[:, None]
    reg = NeuralNetRegressor(max_epochs=60, module__n_hidden_neurons=2, random_state=0, lr=0.03)
    predictions = reg.fit(X, np.full(6, target)).predict(X)
    # A constant target has scale 1, so this is a residual of training.
    np.testing.assert_allclose(predictions, target, atol=0.2)


def test_one_epoch_trains_a_quantized_network():
    X, y = blobs(2, 20)
    clf = NeuralNetClassifier(max_epochs=1, module__n_components=0, random_state=0).fit(X, y)
    assert clf.module_.quantized
    assert len(clf.history) == 1
    untrained = SparseQuantNeuralNetImpl(4, 2, n_hidden_neurons=24, n_input_bits=1)
    assert clf.module_.linears[0].weight.shape == untrained.linears[0].weight.shape
