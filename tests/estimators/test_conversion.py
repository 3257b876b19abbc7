"""Float networks that are trained already become estimators that learned their function."""

# What it imports is in no environment of the other engine.
# engine: concrete-python

from __future__ import annotations

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from cases import LINEAR, blobs, needs_engine
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cipherlearn import (
    AccuracyLossWarning,
    NeuralNetClassifier,
    NeuralNetRegressor,
    from_sklearn,
    from_torch,
)
from cipherlearn.training._float_networks import FloatNetwork, mlp_module

QUICK = {
    "module__n_hidden_neurons": 6,
    "module__n_components": 0,
    "batch_size": 30,
    "max_epochs": 50,
    "random_state": 0,
    "warn_on_loss": False,
}
FLOAT = {"solver": "lbfgs", "alpha": 0.1, "max_iter": 2000, "random_state": 0}
NAMES = np.array(["ant", "bee", "cow"])
X, Y = blobs(3)
LABELS = NAMES[Y]


@pytest.fixture(scope="module")
def mlp():
    return MLPClassifier((8,), **FLOAT).fit(X, LABELS)


@pytest.fixture(scope="module")
def converted(mlp):
    return from_sklearn(mlp, X, **QUICK)


def ramp(n_outputs=1):
    """Targets that a float network follows closely, in units far from standardized ones."""
    targets = 1000 + 50 * np.column_stack([X.sum(axis=1), abs(X[:, 0])])[:, :n_outputs]
    return targets[:, 0] if n_outputs == 1 else targets


# ---------------------------------------------------------------------- classifiers


def test_a_classifier_predicts_what_the_mlp_predicts(mlp, converted):
    assert isinstance(converted, NeuralNetClassifier)
    np.testing.assert_array_equal(converted.classes_, NAMES)
    agreement = (converted.predict(X) == mlp.predict(X)).mean()
    assert agreement > 0.95
    assert converted.reference_score_ == pytest.approx(1)
    assert converted.training_score_ == pytest.approx(agreement)


def test_the_probabilities_of_the_mlp_are_learned_and_not_only_its_labels():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 2))
    # Heads three times in four where the first feature is positive, and else once.
    mlp = MLPClassifier((4,), **FLOAT | {"alpha": 10.0})
    mlp.fit(rows, rng.uniform(size=200) < np.where(rows[:, 0] > 0, 0.75, 0.25))
    expected = mlp.predict_proba(rows)
    assert abs(expected - 0.5).mean() < 0.3

    def error(net):
        return abs(net.predict_proba(rows) - expected).mean()

    quick = {**QUICK, "max_epochs": 25}
    hard = NeuralNetClassifier(**quick).fit(rows, mlp.predict(rows))
    assert error(from_sklearn(mlp, rows, **quick)) < 0.06 < 0.12 < error(hard)


def test_classes_that_no_row_belongs_to_are_kept(mlp):
    clf = from_sklearn(mlp, X[Y < 2], **{**QUICK, "max_epochs": 2})
    np.testing.assert_array_equal(clf.classes_, NAMES)
    assert clf.predict_proba(X).shape == (len(X), 3)


@pytest.mark.parametrize("labels", [np.array([False, True]), np.array([-1, 7]), np.array([5])])
def test_labels_keep_their_type(labels):
    y = labels[Y % len(labels)]
    mlp = MLPClassifier((4,), **FLOAT).fit(X, y)
    clf = from_sklearn(mlp, X, **{**QUICK, "max_epochs": 2})
    assert clf.classes_.dtype == labels.dtype
    assert clf.predict(X).dtype == labels.dtype


def test_true_labels_take_part_and_both_networks_are_scored_on_them(mlp):
    y = np.where(np.arange(len(Y)) % 4, LABELS, "cow")
    clf = from_sklearn(mlp, X, y, **QUICK)
    assert clf.reference_score_ == pytest.approx(mlp.score(X, y))
    assert clf.training_score_ == pytest.approx(clf.score(X, y))
    cow = np.flatnonzero(NAMES == "cow")[0]
    shifted = from_sklearn(mlp, X, y, **QUICK, callbacks__quantization__distillation=0.0)
    probabilities = [net.predict_proba(X[Y == 0])[:, cow].mean() for net in (clf, shifted)]
    assert probabilities[0] < probabilities[1]


def test_a_loss_is_warned_of():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 6))
    mlp = MLPClassifier((16,), **FLOAT).fit(rows, (rows[:, ::2] * rows[:, 1::2]).sum(axis=1) > 0)
    narrow = {"module__n_layers": 1, "batch_size": 16, "max_epochs": 20, "random_state": 0}
    with pytest.warns(AccuracyLossWarning, match="points by conversion: its accuracy") as caught:
        clf = from_sklearn(mlp, rows, **narrow)
    assert caught[0].filename == __file__
    assert clf.training_score_ < 0.98


# ---------------------------------------------------------------------- regressors


# Old releases go on for longer. Whatever the MLP predicts is to be learned.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_a_regressor_predicts_what_the_mlp_predicts(n_outputs):
    y = ramp(n_outputs)
    mlp = MLPRegressor(hidden_layer_sizes=(8,), **FLOAT).fit(X, y)
    reg = from_sklearn(mlp, X, **QUICK)
    assert isinstance(reg, NeuralNetRegressor)
    assert reg.predict(X).shape == y.shape
    assert reg.score(X, mlp.predict(X)) > 0.9
    assert reg.reference_score_ == pytest.approx(1)
    assert reg.training_score_ == pytest.approx(reg.score(X, mlp.predict(X)), abs=1e-3)


# ---------------------------------------------------------------------- data


def test_names_of_features_are_the_mlps(mlp):
    frame = pd.DataFrame(X).add_prefix("x")
    named = MLPClassifier((4,), **FLOAT).fit(frame, LABELS)
    quick = {**QUICK, "max_epochs": 2}
    assert from_sklearn(named, frame, **quick).feature_names_in_.tolist() == list(frame)
    with pytest.warns(UserWarning, match="valid feature names"):
        clf = from_sklearn(named, X, **quick)
    assert clf.feature_names_in_.tolist() == list(frame)
    with pytest.raises(ValueError, match="feature names should match"):
        from_sklearn(named, frame[frame.columns[::-1]], **quick)


def test_sparse_rows_are_the_same_rows(mlp):
    rows = np.where(np.median(X) < X, X, 0)
    quick = {**QUICK, "max_epochs": 2}
    dense, sparse = from_sklearn(mlp, rows, **quick), from_sklearn(mlp, csr_array(rows), **quick)
    np.testing.assert_array_equal(dense.predict_proba(rows), sparse.predict_proba(rows))


def test_a_converted_estimator_keeps_no_teacher_and_trains_on_like_any(mlp, converted):
    twin = pickle.loads(pickle.dumps(converted))
    assert twin.reference_score_ == pytest.approx(1)
    np.testing.assert_array_equal(twin.predict_proba(X), converted.predict_proba(X))
    assert not any(isinstance(value, FloatNetwork) for value in vars(converted).values())
    other = np.roll(NAMES, 1)[Y]
    assert clone(twin).fit(X, other).score(X, other) > 0.9
    assert twin.prune(X, LABELS, 0.5).program_.n_bootstraps <= 4


@needs_engine
def test_a_converted_estimator_predicts_encrypted(mlp):
    clf = from_sklearn(mlp, X, **LINEAR)
    clf.compile()
    encrypted = clf.predict(X[:3], execute_in_fhe=True)
    np.testing.assert_array_equal(encrypted, clf.predict(X[:3]))


# ---------------------------------------------------------------------- networks of torch


def test_a_network_of_torch_is_converted_whatever_the_order_of_its_outputs(mlp):
    network = torch.nn.Sequential(torch.nn.Dropout(), mlp_module(mlp)).float().train()
    before = copy.deepcopy(network.state_dict())
    clf = from_torch(network, X, classes=["wolf", "bee", "aphid"], **QUICK)
    assert clf.classes_.tolist() == ["aphid", "bee", "wolf"]
    renamed = {"ant": "wolf", "bee": "bee", "cow": "aphid"}
    assert (clf.predict(X) == [renamed[name] for name in mlp.predict(X)]).mean() > 0.95
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("flat", [False, True])
def test_a_single_output_is_a_target(flat):
    linear = torch.nn.Linear(X.shape[1], 1)
    network = torch.nn.Sequential(linear, torch.nn.Flatten(0)) if flat else linear
    with torch.no_grad():
        linear.weight.fill_(10)
        linear.bias.fill_(500)
    reg = from_torch(network, X, **QUICK)
    assert reg.predict(X).shape == (len(X),)
    assert reg.score(X, 500 + 10 * X.sum(axis=1)) > 0.9


@pytest.mark.parametrize("kind", ["multiclass", "binary", "no hidden layer", "tanh", "logistic"])
def test_a_teacher_computes_what_the_mlp_does(kind):
    hidden = () if kind == "no hidden layer" else (5, 3)
    activation = kind if kind in ("tanh", "logistic") else "relu"
    y = Y > 0 if kind == "binary" else Y
    mlp = MLPClassifier(hidden, activation=activation, **FLOAT).fit(X, y)
    teacher = FloatNetwork(mlp_module(mlp), range(len(mlp.classes_)))
    outputs = teacher(torch.tensor(X)).detach()
    np.testing.assert_allclose(outputs.softmax(dim=1), mlp.predict_proba(X), atol=1e-12)


def test_a_teacher_has_the_positive_outputs_of_a_poisson_mlp():
    if "loss" not in MLPRegressor().get_params():
        pytest.skip("scikit-learn below 1.7")
    mlp = MLPRegressor(hidden_layer_sizes=(4,), loss="poisson", **FLOAT).fit(X, 1 + abs(X[:, 0]))
    outputs = FloatNetwork(mlp_module(mlp))(torch.tensor(X)).detach()
    np.testing.assert_allclose(outputs[:, 0], mlp.predict(X))


# ---------------------------------------------------------------------- refusals


def fitted_search():
    grid = {"alpha": [0.1]}
    return GridSearchCV(MLPClassifier((2,), **FLOAT), grid, cv=2).fit(X, Y)


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda: make_pipeline(StandardScaler(), MLPClassifier()), r"from_sklearn\(pipe\[-1\]"),
        (fitted_search, "Pass its best_estimator_"),
        (RandomForestClassifier, r"Got RandomForestClassifier\. .*fit\(X, model\.predict\(X\)\)"),
        (lambda: torch.nn.Linear(2, 2), "Use from_torch"),
    ],
)
def test_other_models_are_refused_with_a_remedy(make, remedy):
    with pytest.raises(TypeError, match=f"must be an MLPClassifier or MLPRegressor.*{remedy}"):
        from_sklearn(make(), X)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_an_mlp_that_is_not_fitted_is_refused(kind):
    with pytest.raises(NotFittedError):
        from_sklearn(kind(), X)


def test_several_labels_a_row_are_refused():
    mlp = MLPClassifier((2,), **FLOAT).fit(X, np.column_stack([Y > 0, Y > 1]))
    with pytest.raises(ValueError, match=r"one label a row.*2 of them.*an MLP for each label"):
        from_sklearn(mlp, X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"y": np.full(len(X), "dog")}, r"only the classes of the given network.*\['dog'\]"),
        ({"X": X[:, :1]}, "X has 1 features"),
        ({"criterion": torch.nn.NLLLoss}, "criterion=None or torch.nn.CrossEntropyLoss"),
        ({"n_neurons": 3}, "Invalid parameter 'n_neurons'"),
    ],
)
def test_what_does_not_fit_an_mlp_is_refused(mlp, options, message):
    with pytest.raises(ValueError, match=message):
        from_sklearn(**{"mlp": mlp, "X": X, **options})


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (torch.nn.Linear(9, 2), {}, r"map rows of shape.*it raised: "),
        (torch.nn.GRU(4, 2), {}, "it raised: 'tuple' object"),
        (torch.nn.Unflatten(1, (2, 2)), {}, r"Got outputs of shape \(60, 2, 2\)"),
        (torch.nn.LogSoftmax(dim=1), {"classes": ["a", "a"]}, "each once"),
        (torch.nn.LogSoftmax(dim=1), {"classes": ["a", "b", "c"]}, r"4 output\(s\).*Got 3"),
        (torch.nn.Softmax(dim=1), {"classes": list("abcd")}, "Got probabilities.*LogSoftmax"),
        (torch.nn.LogSoftmax(dim=1), {"y": Y}, "give classes to from_torch"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(network, options, message):
    with pytest.raises(ValueError, match=message):
        from_torch(network, X, **options)


def test_what_is_no_network_of_torch_is_refused(mlp):
    with pytest.raises(TypeError, match=r"Got MLPClassifier.*to from_sklearn"):
        from_torch(mlp, X)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_a_module_of_ones_own_is_no_learner(kind):
    # It would learn from labels, and the given network would teach it nothing.
    float_network = kind(hidden_layer_sizes=(4,), **FLOAT).fit(X, Y)
    with pytest.raises(ValueError, match=r"the network of this library alone.*Leave it out"):
        from_sklearn(float_network, X, module=torch.nn.Linear)
