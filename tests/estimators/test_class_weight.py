"""Weights of classes: all ways to give them, and what is predicted of rare classes."""

# What it imports is in no environment of the other engine.
# engine: concrete-python

from __future__ import annotations

import pickle

import numpy as np
import pytest
import skops.io
import torch
from cases import NO_TEACHER, blobs
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

from cipherlearn import NeuralNetClassifier, NeuralNetRegressor


def quick(**parameters):
    """For behaviours that do not depend on accuracy."""
    defaults = {"module__n_hidden_neurons": 3, "max_epochs": 2, "random_state": 0}
    return NeuralNetClassifier(**{**defaults, **parameters})


def synthetic(n_rows, weights, seed, **options):
    n_classes = len(weights) + 1
    return make_classification(
        n_rows,
        10,
        n_informative=6,
        weights=weights,
        n_classes=n_classes,
        random_state=seed,
        **options,
    )


def rare_tumours():
    X, y = load_breast_cancer(return_X_y=True)
    malignant = np.flatnonzero(y == 0)
    kept = np.sort(np.concatenate([np.flatnonzero(y == 1), malignant[:40]]))
    return X[kept], np.array(["malignant", "benign"])[y[kept]]


def one_digit():
    X, y = load_digits(return_X_y=True)
    return X[:1200], y[:1200] == 8


def shell():
    """A class all around the other, which no linear model finds."""
    X = np.random.default_rng(0).normal(size=(1200, 3))
    return X, ((X**2).sum(axis=1) > 8).astype(int)


IMBALANCED = {
    "two-percent": lambda: synthetic(1500, [0.98], 0, class_sep=2.0, flip_y=0.0),
    "three-classes": lambda: synthetic(1200, [0.85, 0.1], 1),
    "rare-tumours": rare_tumours,
    "one-digit": one_digit,
    "shell": shell,
}


def halves(X, y):
    return train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)


def table(y):
    classes = np.unique(y)
    return dict(zip(classes, compute_class_weight("balanced", classes=classes, y=y), strict=True))


# Each returns parameters of the constructor and of fit.
WAYS = {
    "dict": lambda y: ({"class_weight": table(y)}, {}),
    "criterion-balanced": lambda y: ({"criterion__weight": "balanced"}, {}),
    "criterion-list": lambda y: ({"criterion__weight": [*table(y).values()]}, {}),
    "criterion-tensor": lambda y: (
        {"criterion__weight": torch.tensor([*table(y).values()], dtype=torch.float64)},
        {},
    ),
    "sample-weight": lambda y: ({}, {"sample_weight": compute_sample_weight("balanced", y)}),
}


@pytest.fixture(scope="module", params=IMBALANCED)
def imbalanced(request):
    """Training and test rows, a network that was trained briefly on balanced classes, and how."""
    X, y = IMBALANCED[request.param]()
    assert 0.015 < np.unique(y, return_counts=True)[1].min() / len(y) < 0.2
    split = halves(X, y)
    # The larger teacher takes seconds. It is weighted, too, which one of the data sets shows.
    options = {} if request.param == "two-percent" else NO_TEACHER
    return split, quick(class_weight="balanced", **options).fit(split[0], split[2]), options


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_weight_classes_predicts_the_same(imbalanced, way):
    (X_train, X_test, y_train, _), expected, options = imbalanced
    parameters, weights = WAYS[way](y_train)
    clf = quick(**parameters, **options).fit(X_train, y_train, **weights)
    np.testing.assert_array_equal(clf.predict_proba(X_test), expected.predict_proba(X_test))


def test_a_loss_given_by_the_user_is_weighted_in_the_same_way():
    X, y = rare_tumours()
    options = {"criterion": torch.nn.CrossEntropyLoss, "max_epochs": 4}
    balanced, loss = (
        quick(**parameters, **options).fit(X, y).predict_proba(X)
        for parameters in ({"class_weight": "balanced"}, {"criterion__weight": "balanced"})
    )
    np.testing.assert_array_equal(loss, balanced)


def test_rare_classes_are_found_as_well_as_by_a_linear_model():
    linear = LogisticRegression(class_weight="balanced", max_iter=1000)
    linear = make_pipeline(StandardScaler(), linear)
    clf = NeuralNetClassifier(class_weight="balanced", max_epochs=40, random_state=0)
    scores = []
    for load in IMBALANCED.values():
        X_train, X_test, y_train, y_test = halves(*load())
        predictions = (model.fit(X_train, y_train).predict(X_test) for model in (clf, linear))
        scores.append([balanced_accuracy_score(y_test, labels) for labels in predictions])
    ours, theirs = np.mean(scores, axis=0)
    assert ours > theirs - 0.01
    assert min(ours for ours, _ in scores) > 0.7


def test_probabilities_are_those_of_weighted_rows():
    # Nothing tells the rows apart, so the network can only learn the weighted frequencies.
    X, y = np.zeros((200, 2)), np.repeat(["common", "rare"], [180, 20])
    frequency = 5 * 20 / (180 + 5 * 20)
    for parameters in ({"class_weight": {"rare": 5}}, {"criterion__weight": [1, 5]}):
        clf = quick(**parameters, max_epochs=200, criterion__label_smoothing=0.1).fit(X, y)
        probability = clf.predict_proba(X[:1])[0, 1]
        assert probability == pytest.approx(0.9 * frequency + 0.05, abs=0.02)


# ---------------------------------------------------------------------- the numbers


def test_balanced_weights_are_inverse_frequencies():
    X, y = blobs(2, 40)
    keep = (y == 0) | (np.arange(40) % 4 == 1)
    X, y = X[keep], y[keep]
    assert np.bincount(y).tolist() == [20, 10]
    assert quick(class_weight="balanced").fit(X, y).class_weight_.tolist() == [0.75, 1.5]


def test_balanced_weights_count_sample_weights():
    X, y = blobs(2, 40)
    weight = np.where(y == 0, 3.0, 1.0)
    clf = quick(class_weight="balanced").fit(X, y, sample_weight=weight)
    # Classes of weight 60 and 20: 80 / (2 * 60) and 80 / (2 * 20).
    assert clf.class_weight_.tolist() == pytest.approx([2 / 3, 2.0])


def test_class_weights_multiply_sample_weights():
    X, y = blobs(3, 40)
    weight = np.random.default_rng(0).uniform(1, 2, 40)
    weighted = quick(class_weight={0: 2.0, 2: 8.0}).fit(X, y, sample_weight=weight)
    product = quick().fit(X, y, sample_weight=weight * np.array([2.0, 1.0, 8.0])[y])
    assert weighted.class_weight_.tolist() == [2.0, 1.0, 8.0]
    np.testing.assert_array_equal(weighted.predict_proba(X), product.predict_proba(X))


def test_a_class_of_weight_0_is_left_out_but_stays_known():
    X, y = blobs(3)
    clf = quick(class_weight={1: 0.0}, max_epochs=20, module__n_hidden_neurons=8, lr=0.03).fit(X, y)
    assert clf.classes_.tolist() == [0, 1, 2]
    assert set(clf.predict(X)) == {0, 2}


@pytest.mark.parametrize("container", [np.array, list, tuple, torch.tensor])
def test_weights_move_the_decision(container):
    X, _ = blobs(2, 60)
    y = np.tile(["a", "b"], 30)
    clf = quick(criterion__weight=container([1.0, 100.0]), max_epochs=20)
    assert (clf.fit(np.zeros_like(X), y).predict(np.zeros_like(X)) == "b").all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"class_weight": "unbalanced"},
            "must be a dict, \"balanced\" or None. Got 'unbalanced'",
        ),
        ({"class_weight": [1, 2, 3]}, r"must be a dict, \"balanced\" or None. Got \[1, 2, 3\]"),
        ({"class_weight": {0: 1, 7: 1}}, r"which has \[0, 1, 2\]. Got also \[7\]"),
        ({"class_weight": {0: "a"}}, "class_weight must hold a number for each class"),
        ({"class_weight": {0: -1.0}}, "finite numbers of at least 0. Got {0: -1.0}"),
        ({"class_weight": {0: np.nan}}, "class_weight must hold finite numbers"),
        ({"class_weight": {0: 0, 1: 0, 2: 0}}, r"Got only classes of weight 0: \[0 1 2\]"),
        (
            {"criterion__weight": "unbalanced"},
            "must be an array, \"balanced\" or None. Got 'unbalanced'",
        ),
        (
            {"criterion__weight": [1.0, 2.0]},
            r"one number for each of the 3 classes .* Got \[1.0, 2.0\]",
        ),
        ({"criterion__weight": [[1.0, 2.0, 3.0]]}, r"Got \[\[1.0, 2.0, 3.0\]\]"),
        (
            {"class_weight": "balanced", "criterion__weight": "balanced"},
            "Got both class_weight and criterion__weight",
        ),
    ],
)
def test_invalid_class_weights_are_refused(parameters, message):
    X, y = blobs(3)
    with pytest.raises(ValueError, match=message):
        quick(**parameters).fit(X, y)


# ---------------------------------------------------------------------- an estimator's parameter


def test_a_classifier_has_the_parameter_and_a_regressor_has_not():
    assert quick(class_weight={0: 2}).get_params()["class_weight"] == {0: 2}
    assert clone(quick(class_weight={0: 2})).class_weight == {0: 2}
    assert "class_weight" not in NeuralNetRegressor().get_params()


@pytest.mark.parametrize(
    "duplicate",
    [
        lambda clf: pickle.loads(pickle.dumps(clf)),
        lambda clf: skops.io.loads(
            content := skops.io.dumps(clf),
            trusted=skops.io.get_untrusted_types(data=content),
        ),
    ],
    ids=["pickle", "skops"],
)
def test_a_stored_estimator_keeps_its_weights(duplicate):
    X, y = blobs(2)
    y = np.array(["no", "yes"])[y]
    clf = quick(class_weight={"yes": 3, "no": 0.5}, warm_start=True).fit(X, y)
    again = duplicate(clf)
    assert again.class_weight == clf.class_weight
    assert again.class_weight_.tolist() == [0.5, 3.0]
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    assert again.fit(X, y).class_weight_.tolist() == [0.5, 3.0]


@pytest.mark.parametrize("name", ["class_weight", "criterion__weight"])
def test_partial_fit_refuses_to_balance_as_scikit_learn_does(name):
    X, y = blobs(2)
    with pytest.raises(ValueError, match=f'Got {name}="balanced".* pass class_weight='):
        quick(**{name: "balanced"}).partial_fit(X, y)


def test_partial_fit_weighs_classes_in_every_call():
    X, y = blobs(3)
    weighted, rows = quick(class_weight={2: 4.0}), quick()
    for part in (slice(None), slice(0, 30), slice(30, None)):
        weight = np.where(y[part] == 2, 4.0, 1.0)
        weighted.partial_fit(X[part], y[part])
        rows.partial_fit(X[part], y[part], sample_weight=weight)
    np.testing.assert_array_equal(weighted.predict_proba(X), rows.predict_proba(X))


def test_pruning_weighs_classes_as_fit_does():
    X, y = blobs(2, 80)
    keep = (y == 0) | (np.arange(80) % 8 == 1)
    X, y = X[keep], y[keep]
    weights = {"sample_weight": compute_sample_weight("balanced", y)}
    balanced = quick(class_weight="balanced").fit(X, y).prune(X, y, 0.3)
    rows = quick().fit(X, y, **weights).prune(X, y, 0.3, **weights)
    np.testing.assert_array_equal(balanced.predict_proba(X), rows.predict_proba(X))
