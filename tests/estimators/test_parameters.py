"""Parameters, clones and copies of the estimators."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from cases import blobs, quick, same_network
from sklearn.base import clone
from skorch.callbacks import EarlyStopping

from cipherlearn import NeuralNetClassifier, NeuralNetRegressor


def test_skorchs_prefixes_reach_their_targets():
    X, y = blobs(2, 33)
    clf = quick(
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=0.25,
        batch_size=16,
        iterator_train__drop_last=True,
        criterion__label_smoothing=0.1,
        callbacks__quantization__percentile=90.0,
    ).fit(X, y)
    assert type(clf.optimizer_) is torch.optim.AdamW
    assert clf.optimizer_.param_groups[0]["weight_decay"] == 0.25
    assert [len(row["batches"]) for row in clf.history] == [2, 2]
    assert clf.criterion_.label_smoothing == 0.1
    other = clone(clf).set_params(callbacks__quantization__percentile=95.0).fit(X, y)
    assert not np.allclose(clf.program_.scaler.gain, other.program_.scaler.gain)


def test_a_batch_size_of_minus_one_takes_all_rows():
    X, y = blobs(2, 33)
    assert [len(row["batches"]) for row in quick(batch_size=-1).fit(X, y).history] == [1, 1]


def test_module_parameters_reach_the_module():
    X, y = blobs(3)
    clf = quick(
        module__n_layers=3,
        module__n_hidden_neurons=[5, 2],
        module__n_w_bits=4,
        module__n_a_bits=3,
        module__n_components=1,
        module__n_codes_per_feature=2,
        module__threshold_placement="quantile",
        module__activation_function=torch.nn.Tanh,
    ).fit(X, y)
    shapes = [tuple(linear.weight.shape) for linear in clf.module_.linears]
    assert shapes == [(5, 10), (2, 5), (3, 2), (3, 10)]
    assert clf.program_.quantizer.n_bits == 3
    assert np.abs(clf.program_.layers[0].weights).max() <= 7
    assert type(clf.module_.activations[0].function) is torch.nn.Tanh


def test_parameters_set_after_fit_keep_the_fitted_network_until_the_next_fit():
    X, y = blobs(3)
    clf = quick().fit(X, y)
    before = clf.predict_proba(X)
    clf.set_params(
        module__n_hidden_neurons=7, module__n_layers=3, random_state=9, criterion__weight="balanced"
    )
    np.testing.assert_array_equal(clf.predict_proba(X), before)
    widths = [linear.out_features for linear in clf.module_.linears]
    assert widths == [3, 3, 3]
    clf.fit(X, y)
    widths = [linear.out_features for linear in clf.module_.linears]
    assert widths == [7, 7, 3, 3]
    assert clf.class_weight_.tolist() == [1.0, 1.0, 1.0]


def test_parameters_set_one_by_one_equal_those_given_at_once():
    X, y = blobs(3)
    clf = quick().set_params(module__n_w_bits=4, optimizer__weight_decay=0.1, max_epochs=3)
    twin = quick(module__n_w_bits=4, optimizer__weight_decay=0.1, max_epochs=3)
    assert clf.get_params(deep=False) == twin.get_params(deep=False)
    assert same_network(clf.fit(X, y), twin.fit(X, y))


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"module__n_w_bits": 1}, ValueError, "n_w_bits must be an integer from 2 to 8. Got 1"),
        ({"module__n_a_bits": 9}, ValueError, "n_a_bits must be an integer from 1 to 8. Got 9"),
        ({"module__n_layers": 0}, ValueError, "n_layers must be an integer of at least 1. Got 0"),
        ({"module__n_accum_bits": 2}, ValueError, "must be at least 1"),
        ({"max_epochs": 0}, ValueError, "max_epochs must be an integer of at least 1. Got 0"),
        ({"max_epochs": -3}, ValueError, "max_epochs must be an integer of at least 1. Got -3"),
    ],
)
def test_invalid_parameters_are_refused_at_fit(parameters, error, message):
    X, y = blobs(2)
    with pytest.raises(error, match=message):
        quick(**parameters).fit(X, y)


@pytest.mark.parametrize("multiplier", [np.float64(2.0), np.float32(2.0), np.int64(2)])
def test_parameters_may_be_numpy_numbers(multiplier):
    X, y = blobs(2)
    clf = quick(
        module__n_hidden_neurons_multiplier=multiplier,
        module__n_hidden_neurons=np.int64(3),
        module__n_w_bits=np.int64(2),
        module__n_accum_bits=np.int32(8),
        module__n_hidden_accum_bits=None,
        module__wide_path=np.bool_(False),
        max_epochs=np.int64(2),
    )
    assert clf.fit(X, y).module_.budgets == [56, 56]


@pytest.mark.parametrize("estimator", [NeuralNetClassifier, NeuralNetRegressor])
def test_parameters_survive_a_clone(estimator):
    given = {
        "module__n_layers": 3,
        "module__n_hidden_neurons": [4, 2],
        "module__activation_function": torch.nn.Tanh,
        "optimizer__weight_decay": 0.1,
        "callbacks": [("stop", EarlyStopping())],
        "callbacks__pruning__end": 0.5,
        "train_split": None,
        "random_state": 3,
    }
    original = estimator(**given)
    parameters = original.get_params(deep=False)
    assert {name: parameters[name] for name in given} == given
    twin = clone(original).get_params(deep=False)
    assert set(twin) == set(parameters)
    for name in set(given) - {"callbacks"}:
        assert twin[name] == given[name]


def test_a_clone_of_a_fitted_estimator_is_not_fitted():
    X, y = blobs(2)
    clf = quick(optimizer__weight_decay=0.1).fit(X, y)
    twin = clone(clf)
    assert not hasattr(twin, "program_")
    assert twin.get_params(deep=False) == clf.get_params(deep=False)
    assert same_network(twin.fit(X, y), clf)


def test_fitting_adds_no_parameters():
    X, y = blobs(2)
    clf = quick()
    before = clf.get_params(deep=False)
    assert clf.fit(X, y).get_params(deep=False) == before


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda clf: pickle.loads(pickle.dumps(clf))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_copies_predict_the_same_and_go_on_training(duplicate):
    X, y = blobs(3)
    clf = quick().fit(X, np.array(["a", "b", "c"])[y])
    twin = duplicate(clf)
    np.testing.assert_array_equal(twin.predict_proba(X), clf.predict_proba(X))
    assert twin.get_params(deep=False) == clf.get_params(deep=False)
    twin.partial_fit(X, np.array(["a", "b", "c"])[y])
    assert twin.predict(X).dtype == "<U1"


def test_a_pickled_estimator_trains_on_as_the_original_would():
    X, y = blobs(3)
    clf = quick().fit(X, y)
    twin = pickle.loads(pickle.dumps(clf))
    assert same_network(twin.partial_fit(X, y), clf.partial_fit(X, y))
