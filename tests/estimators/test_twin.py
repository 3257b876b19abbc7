"""The float twin has the same topology and is an ordinary scikit-learn estimator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import blobs
from sklearn.neural_network import MLPClassifier, MLPRegressor

from cipherlearn import NeuralNetClassifier, NeuralNetRegressor


@pytest.mark.parametrize(
    ("n_layers", "width", "expected"),
    [
        (1, 8, ()),
        (2, 8, (8,)),
        (3, 8, (8, 8)),
        (3, [5, 4], (5, 4)),
        (3, np.array([5, 4]), (5, 4)),
        (3, "auto", (24, 24)),
    ],
)
def test_a_twin_has_the_same_hidden_layers(n_layers, width, expected):
    clf = NeuralNetClassifier(module__n_layers=n_layers, module__n_hidden_neurons=width)
    mlp = clf.float_twin()[-1]
    assert isinstance(mlp, MLPClassifier)
    assert mlp.hidden_layer_sizes == expected


def test_a_twin_of_a_classifier_learns_its_labels():
    X, y = blobs(3)
    labels = np.array(["ant", "bee", "cow"])[y]
    twin = NeuralNetClassifier(random_state=0).float_twin().fit(X, labels)
    assert twin.score(X, labels) > 0.9


def test_a_twin_of_a_regressor_scales_its_targets():
    X, _ = blobs(3, n_rows=200)
    y = 1e6 + 1e3 * X[:, :2]
    twin = NeuralNetRegressor(random_state=0).float_twin()
    assert isinstance(twin.regressor[-1], MLPRegressor)
    assert twin.fit(X, y).score(X, y) > 0.9


@pytest.mark.parametrize(
    ("activation", "name"),
    [(torch.nn.ReLU, "relu"), (torch.nn.Tanh, "tanh"), (torch.nn.Sigmoid, "logistic")],
)
def test_a_twin_has_the_same_activation(activation, name):
    clf = NeuralNetClassifier(module__activation_function=activation, random_state=3)
    assert clf.float_twin()[-1].activation == name
    assert clf.float_twin()[-1].random_state == 3


def test_an_activation_that_scikit_learn_lacks_is_refused():
    clf = NeuralNetClassifier(module__activation_function=torch.nn.GELU)
    with pytest.raises(ValueError, match=r"torch\.nn\.ReLU, torch\.nn\.Tanh.*Got .*GELU"):
        clf.float_twin()
