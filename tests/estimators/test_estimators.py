"""The estimators as scikit-learn users know them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from cases import blobs, classifier, plane, quick, regressor
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score
from skorch.callbacks import Callback

from cipherlearn import NeuralNetClassifier

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
    # One weight that rounds to another level moves a prediction by some hundredths.
    np.testing.assert_allclose((predictions - offset) / scale, reference, atol=0.15)


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
