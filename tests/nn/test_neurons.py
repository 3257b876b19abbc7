"""Pruning neurons: the least important go, the rest is fine-tuned, the original is not changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import NO_TEACHER, blobs, needs_concrete_python, random_module
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.exceptions import NotFittedError

from cipherlearn import NeuralNetClassifier, NeuralNetRegressor
from cipherlearn.estimators._pruning import with_fewer_neurons
from cipherlearn.nn._neurons import choose_neurons, neuron_importance, without_neurons


@pytest.fixture(scope="module")
def fitted():
    """A classifier of twelve hidden neurons. Tests must not change it."""
    X, y = load_breast_cancer(return_X_y=True)
    clf = NeuralNetClassifier(
        module__n_hidden_neurons=12,
        module__wide_path=False,
        max_epochs=30,
        random_state=0,
        **NO_TEACHER,
    )
    return clf.fit(X, np.array(["malignant", "benign"])[y]), X, np.array(["malignant", "benign"])[y]


def test_the_named_part_of_the_neurons_goes(fitted):
    clf, X, y = fitted
    small = clf.prune(X, y, n_prune_neurons_percentage=0.5)
    n_alive = int((neuron_importance(clf.module_, torch.from_numpy(X))[0] > 0).sum())
    assert small.module_.linears[0].out_features == n_alive - n_alive // 2
    assert small.program_.n_bootstraps <= clf.program_.n_bootstraps - n_alive // 2
    assert small.get_params()["module__n_hidden_neurons"] == [n_alive - n_alive // 2]
    assert small.score(X, y) > 0.95


def test_the_original_is_not_changed(fitted):
    clf, X, y = fitted
    before, n_epochs = clf.predict_proba(X), len(clf.history_)
    small = clf.prune(X, y, 0.25)
    np.testing.assert_array_equal(clf.predict_proba(X), before)
    assert clf.get_params()["module__n_hidden_neurons"] == 12
    assert (len(clf.history_), len(small.history_)) == (n_epochs, 2 * n_epochs)
    assert small.optimizer_.param_groups[0]["lr"] == pytest.approx(0.015)
    held = {id(p) for group in small.optimizer_.param_groups for p in group["params"]}
    assert held == {id(p) for p in small.module_.parameters()}


def test_pruning_can_be_repeated_until_one_neuron_is_left(fitted):
    clf, X, y = fitted
    widths = []
    for _ in range(4):
        clf = clf.prune(X, y, 0.9)
        widths.append(clf.module_.linears[0].out_features)
    assert widths[-1] == 1
    assert widths == sorted(widths, reverse=True)
    assert clf.score(X, y) > 0.85


def test_by_default_neurons_that_hardly_matter_go(fitted):
    clf, X, y = fitted
    small = clf.prune(X, y)
    importance = neuron_importance(clf.module_, torch.from_numpy(X))[0].sort().values
    n_removed = 12 - small.module_.linears[0].out_features
    # One stays, even where the wide path does nearly all.
    assert n_removed == min(11, int((importance.cumsum(0) <= 0.01).sum()))
    assert small.score(X, y) > clf.score(X, y) - 0.02


@needs_concrete_python("keys for sums of more than 5 bits take minutes")
def test_a_pruned_estimator_compiles_and_predicts_encrypted(fitted):
    clf, X, y = fitted
    small = clf.prune(X, y, 0.8)
    assert not hasattr(small, "circuit_")
    small.compile()
    np.testing.assert_array_equal(small.predict(X[:3], execute_in_fhe=True), small.predict(X[:3]))


def test_every_hidden_layer_of_a_regressor_is_pruned():
    X, y = load_diabetes(return_X_y=True)
    reg = NeuralNetRegressor(
        module__n_layers=3, module__n_hidden_neurons=[8, 6], max_epochs=10, random_state=0
    ).fit(X, np.column_stack([y, -y]))
    small = reg.prune(X, np.column_stack([y, -y]), 0.5)
    widths = [linear.out_features for linear in small.module_.linears]
    assert widths[0] <= 4
    assert widths[1] <= 3
    assert widths[2] == 2
    assert small.predict(X).shape == (442, 2)


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, "half", None, float("nan")])
def test_an_invalid_part_is_refused(fitted, share):
    clf, X, y = fitted
    with pytest.raises(ValueError, match=r"at least 0 and below 1\. Got .*For 25 % pass 0\.25"):
        clf.prune(X, y, n_prune_neurons_percentage=share)


def test_pruning_needs_a_fitted_estimator_and_its_features(fitted):
    clf, X, y = fitted
    with pytest.raises(NotFittedError):
        NeuralNetClassifier().prune(X, y)
    with pytest.raises(ValueError, match="29 features"):
        clf.prune(X[:, 1:], y)


def test_a_linear_model_has_no_neurons_to_prune():
    X, y = blobs(2)
    clf = NeuralNetClassifier(module__n_layers=1, max_epochs=5, random_state=0).fit(X, y)
    small = clf.prune(X, y, 0.5)
    assert small.program_.n_bootstraps == 0
    assert small.get_params()["module__n_hidden_neurons"] == "auto"


def test_the_order_of_the_rows_does_not_decide_which_neurons_go():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 1500)
    X = rng.normal(size=(4500, 4)) + 2 * np.eye(3, 4)[y]
    clf = NeuralNetClassifier(
        module__n_hidden_neurons=12, max_epochs=3, random_state=0, **NO_TEACHER
    ).fit(X, y)
    kept = with_fewer_neurons(clf, X, 0.75).module_.linears[0].weight
    shuffled = rng.permutation(4500)
    importance = neuron_importance(clf.module_, torch.from_numpy(X[shuffled]))
    expected = clf.module_.linears[0].weight[choose_neurons(importance, 0.75)[0]]
    assert torch.equal(kept, expected)


# ---------------------------------------------------------------------- the pieces


def test_a_neuron_that_nothing_reads_has_no_importance():
    module, X = random_module(1, n_layers=3, n_hidden_neurons=5)
    module.linears[1].mask[:, 2] = 0
    first, second = neuron_importance(module, torch.from_numpy(X))
    assert first[2] == 0
    assert (first.shape, second.shape) == ((5,), (5,))
    assert first.max() > 0
    assert second.max() > 0


def test_the_least_important_are_chosen():
    importance = [torch.tensor([0.5, 0.004, 0.3, 0.004, 0.004, 0.0])]
    assert choose_neurons(importance, "auto")[0].tolist() == [0, 2, 4]
    assert choose_neurons(importance, 0.0)[0].tolist() == [0, 1, 2, 3, 4]
    assert choose_neurons(importance, 0.99)[0].tolist() == [0]


def test_removing_neurons_that_change_nothing_keeps_the_function():
    module, X = random_module(1, n_layers=3, n_hidden_neurons=5)
    module.linears[1].mask[:, 2] = 0
    rows = torch.from_numpy(X)
    kept = [torch.tensor([0, 1, 3, 4]), torch.arange(5)]
    smaller = without_neurons(module, kept, rows)
    assert [linear.out_features for linear in smaller.linears] == [4, 5, 3, 3]
    with torch.no_grad():
        torch.testing.assert_close(smaller(rows), module(rows))


def test_a_removed_neuron_leaves_its_mean_behind():
    module, X = random_module(2, n_hidden_neurons=4)
    rows = torch.from_numpy(X)
    smaller = without_neurons(module, [torch.tensor([1, 3])], rows)
    with torch.no_grad():
        torch.testing.assert_close(smaller(rows).mean(dim=0), module(rows).mean(dim=0))
