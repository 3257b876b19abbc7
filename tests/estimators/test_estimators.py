"""The estimators as scikit-learn and skorch users know them."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from cases import blobs
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, get_scorer
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, EpochScoring
from skorch.dataset import ValidSplit

from cipherlearn import NeuralNetClassifier, NeuralNetRegressor


def classifier(**parameters):
    """Fast, and good enough for well separated classes."""
    defaults = {"module__n_hidden_neurons": 8, "max_epochs": 15, "lr": 0.03, "random_state": 0}
    return NeuralNetClassifier(**{**defaults, **parameters})


def regressor(**parameters):
    defaults = {"module__n_hidden_neurons": 8, "max_epochs": 30, "lr": 0.03, "random_state": 0}
    return NeuralNetRegressor(**{**defaults, **parameters})


def quick(**parameters):
    """For behaviours that do not depend on accuracy."""
    return classifier(**{"module__n_hidden_neurons": 3, "max_epochs": 2, **parameters})


def plane(n_rows=80, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, 3))
    return X, X @ [2.0, -1.0, 0.5]


def same_network(a, b):
    return all(
        np.array_equal(left.weights, right.weights)
        for left, right in zip(a.program_.layers, b.program_.layers, strict=True)
    ) and np.array_equal(a.program_.scaler.bias, b.program_.scaler.bias)


# ---------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param(np.array(["no", "yes"]), id="strings"),
        pytest.param(np.array(["cat", "dog", "eel"]), id="three-strings"),
        pytest.param(np.array(["b", "a", "c"], dtype=object), id="objects"),
        pytest.param(np.array([False, True]), id="booleans"),
        pytest.param(np.array([-1, 1]), id="signs"),
        pytest.param(np.array([40, 7, 1000]), id="integers"),
        pytest.param(np.array([0.0, 1.0]), id="integral-floats"),
    ],
)
def test_labels_come_back_as_they_were_given(labels):
    X, indices = blobs(len(labels))
    y = labels[indices]
    clf = classifier().fit(X, y)
    predictions = clf.predict(X)
    assert clf.classes_.tolist() == sorted(labels.tolist())
    assert predictions.dtype == labels.dtype
    assert accuracy_score(y, predictions) == clf.score(X, y) > 0.9


def test_lists_are_data():
    X, y = blobs(2)
    names = ["no" if label == 0 else "yes" for label in y]
    assert classifier().fit(X.tolist(), names).predict(X[:4].tolist()).tolist() == names[:4]


def test_probabilities_follow_the_order_of_the_classes():
    X, y = blobs(3)
    clf = classifier().fit(X, np.array(["c", "a", "b"])[y])
    probabilities = clf.predict_proba(X)
    assert probabilities.shape == (60, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_array_equal(clf.classes_[probabilities.argmax(axis=1)], clf.predict(X))
    outputs = clf.program_(X).astype(np.float64)
    exponentials = np.exp(outputs)
    np.testing.assert_allclose(
        probabilities, exponentials / exponentials.sum(axis=1, keepdims=True), rtol=1e-9
    )


def test_one_class_is_always_predicted():
    X, _ = blobs()
    clf = quick().fit(X, np.full(60, "only"))
    assert clf.classes_.tolist() == ["only"]
    assert (clf.predict(X) == "only").all()
    np.testing.assert_array_equal(clf.predict_proba(X), np.ones((60, 1)))


def test_continuous_targets_are_no_classes():
    X, y = plane()
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        NeuralNetClassifier().fit(X, y)


def test_the_default_classifier_works():
    X, y = blobs(3)
    clf = NeuralNetClassifier(max_epochs=20)
    defaults = NeuralNetClassifier().get_params(deep=False)
    assert clf.get_params(deep=False) == {**defaults, "max_epochs": 20}
    assert clf.fit(X, y).score(X, y) > 0.9


def test_predictions_are_those_of_the_module():
    X, y = blobs(3)
    clf = classifier().fit(X, y)
    with torch.no_grad():
        outputs = clf.module_.eval()(torch.from_numpy(X)).numpy()
    np.testing.assert_array_equal(clf.program_(X), outputs)
    np.testing.assert_array_equal(clf.predict(X), outputs.argmax(axis=1))


# ---------------------------------------------------------------------- features


def test_names_of_features_are_remembered_and_checked():
    X, y = blobs(2)
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    clf = quick().fit(frame, pd.Series(y))
    assert clf.feature_names_in_.tolist() == ["a", "b", "c", "d"]
    assert clf.n_features_in_ == 4
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        unnamed = clf.predict(X)
    np.testing.assert_array_equal(clf.predict(frame), unnamed)
    with pytest.raises(ValueError, match="Feature names must be in the same order"):
        clf.predict(frame[["b", "a", "c", "d"]])
    with pytest.raises(ValueError, match="Feature names unseen at fit time:\n- z"):
        clf.predict(frame.rename(columns={"d": "z"}))


def test_arrays_have_no_feature_names():
    X, y = blobs(2)
    assert not hasattr(quick().fit(X, y), "feature_names_in_")


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8, bool])
def test_every_numeric_type_is_a_feature(dtype):
    X, y = blobs(2)
    X = (X > 0).astype(dtype)
    clf = quick().fit(X, y)
    np.testing.assert_array_equal(clf.predict(X), clf.predict(X.astype(np.float64)))


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 1e6), (1e-3, 1e5), (1e9, -1e12)])
def test_raw_data_need_no_scaling(scale, offset):
    X, y = blobs(3)
    raw = X * scale + offset
    assert classifier().fit(raw, y).score(raw, y) > 0.9


# ---------------------------------------------------------------------- weights


@pytest.mark.parametrize("seed", range(3))
def test_an_integer_weight_is_the_same_as_repeating_the_row(seed):
    X, y = blobs(3, 40)
    repeats = np.random.default_rng(seed).integers(0, 4, 40)
    weighted = classifier(max_epochs=5).fit(X, y, sample_weight=repeats)
    repeated = classifier(max_epochs=5).fit(X.repeat(repeats, axis=0), y.repeat(repeats))
    assert same_network(weighted, repeated)
    np.testing.assert_array_equal(weighted.predict_proba(X), repeated.predict_proba(X))


def test_integer_weights_of_a_regressor_are_the_same_as_repeating_the_row():
    X, y = plane(40)
    repeats = np.random.default_rng(0).integers(0, 4, 40)
    weighted = regressor(max_epochs=5).fit(X, y, sample_weight=repeats)
    repeated = regressor(max_epochs=5).fit(X.repeat(repeats, axis=0), y.repeat(repeats))
    np.testing.assert_array_equal(weighted.predict(X), repeated.predict(X))


def test_repeating_every_row_changes_nothing():
    X, y = blobs(3, 30)
    once = classifier(max_epochs=5).fit(X, y)
    twice = classifier(max_epochs=5).fit(X.repeat(2, axis=0), y.repeat(2))
    assert same_network(once, twice)


@pytest.mark.parametrize("scale", [1.0, 3.0, 1e-3])
def test_equal_weights_are_no_weights(scale):
    X, y = blobs(3, 30)
    weighted = classifier(max_epochs=5).fit(X, y, sample_weight=np.full(30, scale))
    assert same_network(weighted, classifier(max_epochs=5).fit(X, y))


def test_weights_change_what_is_learned():
    X, y = blobs(2, 60)
    noisy = np.where(np.arange(60) % 3 == 0, 1 - y, y)
    trusted = (noisy == y).astype(float)
    clf = classifier(max_epochs=30)
    assert clf.fit(X, noisy, sample_weight=trusted).score(X, y) > 0.9
    assert clf.fit(X, noisy, sample_weight=1 - trusted).score(X, y) < 0.1


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([0.0] * 60, "(?i)at least one"),
        ([-1.0] + [1.0] * 59, "Negative values in data passed to `sample_weight`"),
        ([1.0] * 59, r"sample_weight.shape == \(59,\), expected \(60,\)"),
        ([np.nan] + [1.0] * 59, "contains NaN"),
    ],
)
def test_invalid_sample_weights_are_refused(weight, message):
    X, y = blobs()
    with pytest.raises(ValueError, match=message):
        quick().fit(X, y, sample_weight=weight)


# ---------------------------------------------------------------------- randomness


def test_a_seed_reproduces_the_network():
    X, y = blobs(3)
    first, again = quick().fit(X, y), quick().fit(X, y)
    assert same_network(first, again)
    assert same_network(first, again.fit(X, y))
    assert not same_network(first, quick(random_state=1).fit(X, y))


def test_a_random_state_instance_is_used_up():
    X, y = blobs(3)
    first = quick(random_state=np.random.RandomState(5)).fit(X, y)
    shared = np.random.RandomState(5)
    assert same_network(first, quick(random_state=shared).fit(X, y))
    assert not same_network(first, quick(random_state=shared).fit(X, y))


def test_without_a_seed_fits_differ():
    X, y = blobs(3)
    assert not same_network(quick(random_state=None).fit(X, y), quick(random_state=None).fit(X, y))


def test_the_global_generators_are_left_alone():
    X, y = blobs(3)
    torch_state = torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    clf = quick(train_split=ValidSplit(3)).fit(X, y)
    clf.partial_fit(X, y)
    clf.predict(X)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda clf: pickle.loads(pickle.dumps(clf))],
    ids=["deepcopy", "pickle"],
)
def test_copies_leave_the_global_generator_alone(duplicate):
    X, y = blobs(3)
    clf = quick().fit(X, y)
    state = torch.get_rng_state()
    duplicate(clf)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_global_seed_does_not_matter():
    X, y = blobs(3)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = quick().fit(X, y)
        torch.manual_seed(2)
        assert same_network(first, quick().fit(X, y))


# ---------------------------------------------------------------------- further fits


def test_partial_fit_goes_on_from_the_present_weights():
    X, y = blobs(3)
    clf = quick().partial_fit(X, y)
    weight = clf.module_.linears[0].weight
    clf.partial_fit(X, y)
    assert clf.module_.linears[0].weight is weight
    assert len(clf.history) == 4
    assert [row["epoch"] for row in clf.history] == [1, 2, 3, 4]


def test_partial_fit_learns_in_small_portions():
    X, y = blobs(3, 120)
    clf = classifier(max_epochs=15)
    for start in range(0, 120, 30):
        clf.partial_fit(X[start : start + 30], y[start : start + 30], classes=[0, 1, 2])
    assert clf.score(X, y) > 0.9


def test_partial_fit_knows_classes_before_it_sees_them():
    X, y = blobs(2)
    names = np.array(["no", "yes"])[y]
    clf = quick().partial_fit(X, names, classes=["yes", "maybe", "no"])
    assert clf.classes_.tolist() == ["maybe", "no", "yes"]
    assert clf.predict_proba(X).shape == (60, 3)
    clf.partial_fit(X[:2], ["maybe", "maybe"])
    assert clf.classes_.tolist() == ["maybe", "no", "yes"]


def test_partial_fit_refuses_an_unknown_label():
    X, y = blobs(2)
    clf = quick().partial_fit(X, y)
    with pytest.raises(ValueError, match=r"only the classes known since the first fit, \[0 1\]"):
        clf.partial_fit(X, y + 1)
    with pytest.raises(ValueError, match=r"Got also \[2\]. Pass all of them as classes"):
        clf.partial_fit(X, y + 1)
    assert clf.predict(X).shape == (60,)


def test_partial_fit_refuses_a_label_that_is_not_among_the_classes():
    X, y = blobs(3)
    with pytest.raises(ValueError, match=r"Got also \[2\]"):
        quick().partial_fit(X, y, classes=[0, 1])


def test_partial_fit_refuses_another_number_of_features():
    X, y = blobs(2)
    clf = quick().partial_fit(X, y)
    with pytest.raises(ValueError, match=r"X has 3 features, but .* is expecting 4"):
        clf.partial_fit(X[:, :3], y)


def test_partial_fit_refuses_another_number_of_targets():
    X, y = plane()
    reg = regressor(max_epochs=2).partial_fit(X, y)
    with pytest.raises(ValueError, match=r"y must have the 1 target\(s\) of the first fit. Got 2"):
        reg.partial_fit(X, np.column_stack([y, y]))


def test_partial_fit_keeps_the_scale_of_the_targets():
    X, y = plane()
    reg = regressor(max_epochs=2).partial_fit(X, y)
    mean = reg.target_mean_.copy()
    reg.partial_fit(X, y + 100)
    assert reg.target_mean_.tolist() == mean.tolist()


def test_a_warm_start_goes_on_and_a_cold_one_does_not():
    X, y = blobs(3)
    warm = quick(warm_start=True).fit(X, y).fit(X, y)
    cold = quick().fit(X, y).fit(X, y)
    assert (len(warm.history), len(cold.history)) == (4, 2)
    assert same_network(warm, quick().partial_fit(X, y).partial_fit(X, y))
    assert not same_network(warm, cold)


def test_a_cold_fit_forgets_everything():
    X, y = blobs(2)
    clf = quick().fit(X, y)
    clf.fit(X[:, :2], np.array(["a", "b"])[y])
    assert (clf.n_features_in_, clf.classes_.tolist()) == (2, ["a", "b"])
    assert clf.predict(X[:, :2]).shape == (60,)


@pytest.mark.parametrize("mode", [True, "simulate"])
def test_a_dataset_is_not_taken_for_encrypted_rows(mode):
    X, y = blobs(2)
    clf = quick().fit(X, y)
    with pytest.raises(ValueError, match=r"Got a dataset\. Pass its X"):
        clf.predict(clf.get_dataset(X), execute_in_fhe=mode)


def test_a_failed_refit_leaves_nothing_that_predicts():
    X, y = blobs(2)
    clf = quick().fit(X, y)
    with pytest.raises(ValueError, match=r"non-zero|only zeros"):
        clf.fit(X, np.array(["a", "b"])[y], sample_weight=np.zeros(len(y)))
    with pytest.raises(NotFittedError):
        clf.predict(X)


def test_loaded_parameters_are_the_ones_that_predict(tmp_path):
    X, y = blobs(2)
    first = quick(max_epochs=10).fit(X, y)
    first.save_params(f_params=tmp_path / "parameters.pt")
    second = quick(max_epochs=10, random_state=1).fit(X, 1 - y)
    assert not np.array_equal(second.predict_proba(X), first.predict_proba(X))
    second.load_params(f_params=tmp_path / "parameters.pt")
    np.testing.assert_array_equal(second.predict_proba(X), first.predict_proba(X))


def test_parameters_of_callbacks_are_reported_as_set():
    clf = quick(callbacks__pruning__end=0.6)
    assert clf.get_params()["callbacks__pruning__end"] == 0.6
    assert quick().get_params()["callbacks__pruning__end"] == 0.8


def test_a_refused_fit_is_no_fit():
    X, y = blobs(2)
    clf = quick()
    with pytest.raises(ValueError, match="n_w_bits must be"):
        clf.set_params(module__n_w_bits=99).fit(X, y)
    assert not hasattr(clf, "program_")


# ---------------------------------------------------------------------- callbacks


def test_early_stopping_with_a_validation_split_and_names_of_classes():
    X, y = blobs(2)
    stopping = EarlyStopping(patience=3, threshold=1.0)
    clf = classifier(max_epochs=100, train_split=ValidSplit(4), callbacks=[stopping])
    clf.fit(X, np.array(["no", "yes"])[y])
    # Each phase ends on its own, long before its 40 or 60 epochs.
    assert len(clf.history) <= 10
    assert set(clf.history[-1]) >= {"train_loss", "valid_loss", "valid_acc"}
    assert set(clf.predict(X)) <= {"no", "yes"}


class KeepSplit(Callback):
    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        self.train, self.valid = dataset_train.indices, dataset_valid.indices


@pytest.mark.parametrize("scoring", ["accuracy", "f1_macro", "roc_auc"])
def test_scores_of_an_epoch_are_those_of_the_trained_network(scoring):
    X, y = blobs(2, 80)
    y = np.where(np.arange(80) % 5 < 2, 1 - y, y)
    keep = KeepSplit()
    score = EpochScoring(scoring, lower_is_better=False, name="score")
    clf = classifier(max_epochs=6, train_split=ValidSplit(4), callbacks=[keep, score]).fit(X, y)
    assert len(keep.valid) == 20
    assert len(set(keep.valid) | set(keep.train)) == 80
    expected = get_scorer(scoring)(clf, X[keep.valid], y[keep.valid])
    assert clf.history[-1, "score"] == pytest.approx(expected)
    assert expected < 1.0


def test_a_regressors_scores_are_on_standardized_targets():
    X, y = plane()
    score = EpochScoring("r2", lower_is_better=False, name="r2")
    keep = KeepSplit()
    reg = regressor(max_epochs=6, train_split=ValidSplit(4), callbacks=[score, keep])
    reg.fit(X, 1000 + 50 * y)
    # R² does not change with the units.
    assert reg.history[-1, "r2"] == pytest.approx(
        reg.score(X[keep.valid], 1000 + 50 * y[keep.valid]), abs=1e-4
    )


def test_scores_work_with_sample_weights():
    X, y = blobs(2)
    score = EpochScoring("accuracy", lower_is_better=False, name="score")
    clf = classifier(train_split=ValidSplit(4), callbacks=[score])
    clf.fit(X, y, sample_weight=np.arange(60) + 1.0)
    assert clf.history[-1, "score"] > 0.9


def test_checkpoints_are_written(tmp_path):
    X, y = blobs(2)
    checkpoint = Checkpoint(dirname=tmp_path, monitor="train_loss_best")
    clf = classifier(callbacks=[checkpoint]).fit(X, y)
    assert {path.name for path in tmp_path.iterdir()} >= {"params.pt", "optimizer.pt"}
    state = torch.load(tmp_path / "params.pt")
    assert set(state) == set(clf.module_.state_dict())


@pytest.mark.skipif(
    torch.__version__.startswith("1."), reason="torch 1 refuses the floats of an optimizer's state"
)
def test_a_checkpoint_loads_the_best_quantized_network(tmp_path):
    X, y = blobs(3)
    checkpoint = Checkpoint(dirname=tmp_path, monitor="train_loss_best", load_best=True)
    clf = classifier(callbacks=[checkpoint]).fit(X, y)
    assert clf.module_.quantized
    assert clf.score(X, y) > 0.8


def test_validation_loss_is_reported():
    X, y = blobs(3)
    clf = quick(train_split=ValidSplit(4)).fit(X, y)
    assert all(np.isfinite(row["valid_loss"]) for row in clf.history)
    assert "valid_loss" not in quick().fit(X, y).history[-1]


def test_training_is_quiet_unless_asked(capsys):
    X, y = blobs(2)
    clf = quick().fit(X, y)
    clf.predict(X)
    assert capsys.readouterr() == ("", "")
    quick(verbose=2).fit(X, y)
    assert "train_loss" in capsys.readouterr().out


# ---------------------------------------------------------------------- parameters


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
        module__n_codes_per_feature=2,
        module__threshold_placement="quantile",
        module__activation_function=torch.nn.Tanh,
    ).fit(X, y)
    shapes = [tuple(linear.weight.shape) for linear in clf.module_.linears]
    assert shapes == [(5, 8), (2, 5), (3, 2)]
    assert clf.program_.quantizer.n_bits == 3
    assert np.abs(clf.program_.layers[0].weights).max() <= 7
    assert type(clf.module_.activations[0]) is torch.nn.Tanh


def test_parameters_set_after_fit_keep_the_fitted_network_until_the_next_fit():
    X, y = blobs(3)
    clf = quick().fit(X, y)
    before = clf.predict_proba(X)
    clf.set_params(
        module__n_hidden_neurons=7, module__n_layers=3, random_state=9, criterion__weight="balanced"
    )
    np.testing.assert_array_equal(clf.predict_proba(X), before)
    widths = [linear.out_features for linear in clf.module_.linears]
    assert widths == [3, 3]
    clf.fit(X, y)
    widths = [linear.out_features for linear in clf.module_.linears]
    assert widths == [7, 7, 3]
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


# ---------------------------------------------------------------------- regression


def test_one_target_gives_a_vector():
    X, y = plane()
    reg = regressor(max_epochs=60, module__n_hidden_neurons=16).fit(X, y)
    assert reg.predict(X).shape == (80,)
    assert reg.score(X, y) > 0.8


def test_several_targets_give_a_matrix():
    X, y = plane()
    targets = np.column_stack([y, 100 - 10 * X[:, 0]])
    reg = regressor(max_epochs=60).fit(X, targets)
    assert reg.predict(X).shape == (80, 2)
    assert reg.target_mean_.tolist() == pytest.approx(targets.mean(axis=0).tolist())
    assert reg.target_scale_.tolist() == pytest.approx(targets.std(axis=0).tolist())
    assert reg.score(X, targets) > 0.8


def test_a_column_of_targets_warns_and_gives_a_vector():
    X, y = plane()
    with pytest.warns(UserWarning, match="column-vector y was passed"):
        reg = regressor(max_epochs=2).fit(X, y[:, None])
    assert reg.predict(X).shape == (80,)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 1e6), (1e6, 0.0), (1e-6, 0.0), (1e3, -1e9)])
def test_targets_may_have_any_units(scale, offset):
    X, y = plane()
    reference = regressor().fit(X, y).predict(X)
    predictions = regressor().fit(X, y * scale + offset).predict(X)
    np.testing.assert_allclose((predictions - offset) / scale, reference, atol=1e-2)


def test_integer_targets_are_numbers():
    X, _ = plane()
    y = np.arange(80)
    reg = regressor(max_epochs=2).fit(X, y)
    assert reg.predict(X).dtype == np.float64
    assert reg.target_mean_.tolist() == [39.5]


def test_another_loss_can_be_minimized():
    X, y = plane()
    reg = regressor(criterion=torch.nn.SmoothL1Loss, criterion__beta=0.5, max_epochs=60)
    assert reg.fit(X, y).score(X, y) > 0.7
    assert reg.criterion_.beta == 0.5


def test_a_regressor_has_no_probabilities():
    X, y = plane(20)
    assert not hasattr(regressor(max_epochs=1).fit(X, y), "predict_proba")


def test_float_parameters_leave_no_prediction_of_an_earlier_network(tmp_path):
    class Save(Callback):
        def on_epoch_end(self, net, **kwargs):
            if net.phase_.is_warmup:
                net.save_params(f_params=tmp_path / "float.pt")

    X, y = blobs(2)
    clf = quick(callbacks=[Save()], max_epochs=4).fit(X, y)
    clf.load_params(f_params=tmp_path / "float.pt")
    with pytest.raises(NotFittedError):
        clf.predict(X)


@pytest.mark.parametrize("device", [None, "auto", "meta", "mps"])
def test_a_device_that_cannot_train_is_refused(device):
    with pytest.raises(ValueError, match=r'must be "cpu" or a CUDA device such as "cuda"'):
        quick(device=device).fit(*blobs(2))
