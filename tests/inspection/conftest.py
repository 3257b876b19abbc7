"""Models that are pictured, one of each kind."""

from __future__ import annotations

import matplotlib
import matplotlib.pyplot as plt
import pytest
from cases import TINY, blobs, network
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from cipherlearn import NeuralNetRegressor

matplotlib.use("Agg")


def targets(X):
    return X[:, 0] - 2 * X[:, 1]


MODELS = {
    "one layer": lambda X, y: network(module__n_layers=1).fit(X, y),
    "two layers": lambda X, y: network().fit(X, y),
    "no wide path": lambda X, y: network(module__wide_path=False).fit(X, y),
    "finer inputs": lambda X, y: network(
        module__n_input_bits=3, module__n_accum_bits=6, module__n_hidden_accum_bits=5
    ).fit(X, y),
    "three layers": lambda X, y: network(
        module__n_layers=3, module__n_hidden_neurons=[4, 3], module__n_hidden_accum_bits=3
    ).fit(X, y),
    "rounding": lambda X, y: network(
        module__n_accum_bits=5, module__n_hidden_accum_bits=4, module__rounding_bits=3
    ).fit(X, y),
    "l1": lambda X, y: network(module__budget="l1").fit(X, y),
    "not pruned": lambda X, y: network(module__pruning=False).fit(X, y),
    "fewer neurons": lambda X, y: network(module__n_hidden_neurons=6).fit(X, y).prune(X, y, 0.5),
    "regressor": lambda X, y: NeuralNetRegressor(**TINY).fit(X, targets(X)),
    "two targets": lambda X, y: NeuralNetRegressor(**TINY).fit(X, X[:, :2]),
    "pipeline": lambda X, y: make_pipeline(StandardScaler(), network()).fit(X, y),
    "nested": lambda X, y: make_pipeline(
        StandardScaler(), make_pipeline(MinMaxScaler(), network())
    ).fit(X, y),
    "search": lambda X, y: GridSearchCV(network(max_epochs=3), {"lr": [0.01]}, cv=2).fit(X, y),
    "frozen": lambda X, y: FrozenEstimator(network().fit(X, y)),
}


@pytest.fixture(scope="session")
def models():
    X, y = blobs()
    return {name: make(X, y) for name, make in MODELS.items()}


@pytest.fixture(params=list(MODELS))
def model(request, models):
    return models[request.param]


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")
