"""Estimators of modules that users wrote."""

# What it imports is in no environment of the other engine.
# engine: concrete-python

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import skops.io
import torch
from brevitas.nn import QuantConv2d, QuantIdentity, QuantLinear, QuantReLU
from cases import blobs
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from cipherlearn import NeuralNetClassifier, NeuralNetRegressor
from cipherlearn.deployment import FHEClient, FHEServer, export
from cipherlearn.inspection import (
    AccumulatorDisplay,
    CircuitDisplay,
    IntegerLevelsDisplay,
    NetworkDisplay,
    WeightBudgetDisplay,
)


class Small(nn.Module):
    """Two layers, whose shapes follow from the data."""

    def __init__(self, input_dim, n_outputs, n_hidden=3, bits=2):
        super().__init__()
        self.layers = nn.Sequential(
            QuantIdentity(bit_width=bits, return_quant_tensor=True),
            QuantLinear(input_dim, n_hidden, bias=False, weight_bit_width=2),
            nn.BatchNorm1d(n_hidden),
            QuantReLU(bit_width=bits, return_quant_tensor=True),
            QuantLinear(n_hidden, n_outputs, bias=True, weight_bit_width=2),
        )

    def forward(self, rows):
        assert not self.training or rows.dtype == torch.float32
        return self.layers(rows)


class Weighted(Small):
    """One that takes weights of rows, and keeps what it got."""

    def forward(self, rows, sample_weight=None):
        if self.training:
            self.seen = sample_weight
        return super().forward(rows)


class Convolution(nn.Module):
    """A convolution over images of 4 by 4 pixels, of a fixed shape."""

    def __init__(self):
        super().__init__()
        self.first = QuantIdentity(bit_width=2, return_quant_tensor=True)
        self.conv = QuantConv2d(1, 2, 2, stride=2, bias=False, weight_bit_width=2)
        self.relu = QuantReLU(bit_width=2, return_quant_tensor=True)
        self.last = QuantLinear(8, 2, bias=True, weight_bit_width=2)

    def forward(self, X):
        x = self.relu(self.conv(self.first(X.view(-1, 1, 4, 4))))
        return self.last(torch.flatten(x, 1))


def small(**options):
    options = {"max_epochs": 20, "lr": 0.03, "random_state": 0, **options}
    return NeuralNetClassifier(module=Small, **options)


@pytest.fixture(scope="module")
def fitted():
    X, y = blobs()
    X = StandardScaler().fit_transform(X)
    return small(module__n_hidden=6, max_epochs=40).fit(X, y), X, y


def outputs(net, X):
    with torch.no_grad():
        made = net.module_.eval()(torch.from_numpy(X.astype(np.float32)))
    return getattr(made, "value", made).numpy()


def test_it_learns_and_its_program_computes_what_the_module_does(fitted):
    clf, X, y = fitted
    assert clf.score(X, y) > 0.8
    assert clf.predict_proba(X).sum(axis=1) == pytest.approx(1)
    np.testing.assert_allclose(clf.program_(X), outputs(clf, X), atol=1e-4)
    assert len(clf.history) == 40
    assert clf.module_.layers[1].in_features == X.shape[1]


@pytest.mark.parametrize("how", ["pickle", "copy", "skops"])
def test_it_is_stored(fitted, how):
    clf, X, _ = fitted
    loaded = {
        "pickle": lambda net: pickle.loads(pickle.dumps(net)),
        "copy": copy.deepcopy,
        "skops": lambda net: skops.io.loads(
            skops.io.dumps(net), trusted=skops.io.get_untrusted_types(data=skops.io.dumps(net))
        ),
    }[how](clf)
    np.testing.assert_array_equal(loaded.program_(X), clf.program_(X))
    np.testing.assert_array_equal(outputs(loaded, X), outputs(clf, X))


def test_scikit_learn_searches_its_arguments(fitted):
    _, X, y = fitted
    grid = {"module__n_hidden": [1, 2]}
    search = GridSearchCV(small(max_epochs=2), grid, cv=2, error_score="raise").fit(X, y)
    assert search.best_estimator_.program_.n_bootstraps <= 2
    assert clone(search.best_estimator_).get_params()["module__n_hidden"] in (1, 2)
    pipe = make_pipeline(StandardScaler(), small(max_epochs=2)).fit(X, y)
    assert pipe.predict(X).shape == y.shape


def test_arguments_are_passed_to_modules_that_name_them(fitted):
    _, X, y = fitted
    weights = np.linspace(1, 2, len(y))
    clf = small(max_epochs=1).set_params(module=Weighted)
    assert clf.fit(X, y, sample_weight=weights).module_.seen is not None
    # This one names neither the weights nor the shape.
    clf = NeuralNetClassifier(module=Convolution, max_epochs=1, random_state=0)
    images = np.repeat(X, 16, axis=1)[:, :16]
    clf.fit(images, y > 0, sample_weight=weights)
    assert clf.predict(images).dtype == bool
    with pytest.raises(ValueError, match="Invalid parameter 'module__n_hiden'"):
        small(module__n_hiden=3).fit(X, y)


def test_an_instance_is_copied(fitted):
    _, X, y = fitted
    module = Small(X.shape[1], len(np.unique(y)))
    before = copy.deepcopy(module.state_dict())
    clf = NeuralNetClassifier(module=module, max_epochs=2, random_state=0).fit(X, y)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert clf.predict(X).shape == y.shape


def test_a_regressor_trains_it_on_its_targets():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2))
    y = 100 + 10 * X[:, 0]
    reg = NeuralNetRegressor(
        module=Small, module__bits=3, module__n_hidden=8, max_epochs=30, random_state=0
    )
    assert reg.fit(X, y).score(X, y) > 0.5
    assert reg.predict(X).shape == y.shape


def test_what_cannot_be_lowered_is_refused_before_training(fitted):
    _, X, y = fitted

    class Float(nn.Module):
        def __init__(self, input_dim, n_outputs):
            super().__init__()
            self.only = nn.Linear(input_dim, n_outputs)

        def forward(self, X):
            raise_if_trained.append(self.training)
            return self.only(X)

    raise_if_trained: list[bool] = []
    with pytest.raises(ValueError, match=r"only is a torch\.nn.*Linear\. Use QuantLinear"):
        NeuralNetClassifier(module=Float).fit(X, y)
    assert not any(raise_if_trained)


class Residual(Small):
    """A branch around a layer, and a sum of two layers as output."""

    def __init__(self, input_dim, n_outputs):
        super().__init__(input_dim, n_outputs, n_hidden=4)
        self.again = QuantLinear(4, 4, bias=False, weight_bit_width=2)
        self.other = QuantLinear(4, n_outputs, bias=False, weight_bit_width=2)
        self.shared = QuantIdentity(bit_width=2, return_quant_tensor=True)

    def forward(self, rows):
        first, second, norm, relu, last = self.layers
        x = self.shared(norm(second(first(rows))))
        return last(relu(x + self.shared(self.again(x)))) + self.other(x)


def test_pictures_show_branches(fitted):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    _, X, y = fitted
    clf = NeuralNetClassifier(module=Residual, max_epochs=2, random_state=0).fit(X, y)
    assert clf.program_.layer_names == ["hidden 1", "hidden 2", "hidden 3", "output", "output 2"]
    display = NetworkDisplay.from_estimator(clf)
    assert len(display.nodes_) == 5


def test_ciphertexts_reports_and_artefacts(fitted, tmp_path):
    _, X, y = fitted
    clf = small(module__n_hidden=2, module__bits=1, max_epochs=10).fit(X, y)
    clf.compile(p_error=1e-6)
    np.testing.assert_array_equal(clf.predict(X[:2], execute_in_fhe=True), clf.predict(X[:2]))
    np.testing.assert_array_equal(clf.predict(X, execute_in_fhe="simulate"), clf.predict(X))
    report = clf.report(X)
    assert [layer.n_bootstraps for layer in report.layers] == [clf.program_.n_bootstraps, 0]
    assert "hidden 1" in clf._repr_html_()
    for display in (AccumulatorDisplay, CircuitDisplay, IntegerLevelsDisplay, WeightBudgetDisplay):
        display.from_estimator(clf)
    export(clf, tmp_path, n_test_rows=1)
    client, server = FHEClient(tmp_path / "client.zip"), FHEServer(tmp_path / "server.zip")
    client.generate_keys()
    server.add_keys(client.evaluation_keys())
    np.testing.assert_array_equal(client.predict(X[:1], server.evaluate), clf.predict(X[:1]))
