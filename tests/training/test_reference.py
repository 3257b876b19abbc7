"""The loss of accuracy by quantization: measured, shown, and warned of where it is large."""

# What it imports is in no environment of the other engine.
# engine: concrete-python

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest
import skops.io
from cases import NO_TEACHER, blobs
from sklearn.datasets import load_iris, make_gaussian_quantiles

from cipherlearn import (
    AccuracyLossWarning,
    CostEstimate,
    NeuralNetClassifier,
    NeuralNetRegressor,
)

NARROW = {
    "module__n_hidden_neurons": 8,
    "module__n_hidden_accum_bits": 2,
    "module__wide_path": False,
    "batch_size": 32,
    "random_state": 0,
    **NO_TEACHER,
}


@pytest.fixture(scope="module")
def rings():
    """Classes that a network of narrow sums cannot tell apart well."""
    return make_gaussian_quantiles(n_samples=1000, n_features=5, n_classes=3, random_state=0)


@pytest.fixture(scope="module")
def lossy(rings):
    with pytest.warns(AccuracyLossWarning) as caught:
        clf = NeuralNetClassifier(**NARROW, max_epochs=20).fit(*rings)
    return clf, caught


def test_a_loss_is_warned_of_with_its_size_and_a_remedy(lossy, rings):
    clf, caught = lossy
    points = 100 * (clf.reference_score_ - clf.training_score_)
    assert points > 2
    assert clf.training_score_ == pytest.approx(clf.score(*rings))
    assert len(caught) == 1
    message = str(caught[0].message)
    assert f"loses {points:.1f} points" in message
    assert "Raise module__n_hidden_accum_bits from 2 to 3." in message
    assert caught[0].filename == __file__


def test_skorchs_own_methods_train_without_a_score():
    X, y = make_gaussian_quantiles(n_samples=60, n_features=3, random_state=0)
    clf = NeuralNetClassifier(**NARROW, max_epochs=2).fit(X, y)
    n_epochs = len(clf.history)
    clf.fit_loop(X.astype(np.float32), y, epochs=1)
    assert len(clf.history) == n_epochs + 1


def test_the_warning_can_be_turned_off(rings):
    clf = NeuralNetClassifier(**NARROW, max_epochs=20, warn_on_loss=False).fit(*rings)
    assert clf.reference_score_ > clf.training_score_ + 0.02


def test_a_regressor_loses_points_of_r2():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 4))
    y = 100 + 7 * (X**2).sum(axis=1)
    with pytest.warns(AccuracyLossWarning, match="its R² is"):
        reg = NeuralNetRegressor(**NARROW, max_epochs=30).fit(X, y)
    assert reg.training_score_ == pytest.approx(reg.score(X, y), abs=1e-3)


def test_where_nothing_is_lost_there_is_no_warning():
    X, y = load_iris(return_X_y=True)
    clf = NeuralNetClassifier(max_epochs=60, random_state=0).fit(X, y)
    assert clf.reference_score_ > 0.9


def test_scores_are_weighted_as_rows_are(rings):
    X, y = rings
    clf = NeuralNetClassifier(**NARROW, max_epochs=4, warn_on_loss=False, class_weight={0: 9.0})
    clf.fit(X, y)
    weight = np.where(y == 0, 9.0, 1.0)
    assert clf.training_score_ == pytest.approx(clf.score(X, y, sample_weight=weight))


def test_further_training_neither_warns_nor_changes_the_scores(lossy, rings):
    clf = copy.deepcopy(lossy[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.partial_fit(*rings)
    assert clf.reference_score_ == lossy[0].reference_score_


def test_pruning_is_measured_by_what_was_pruned(rings):
    clf = NeuralNetClassifier(max_epochs=4, random_state=0, warn_on_loss=False, **NO_TEACHER).fit(
        *rings
    )
    small = clf.prune(*rings, 0.5)
    assert small.reference_score_ == pytest.approx(clf.score(*rings))
    assert small.training_score_ == pytest.approx(small.score(*rings))


def test_loaded_weights_have_no_known_scores(tmp_path):
    X, y = blobs(2)
    clf = NeuralNetClassifier(max_epochs=2, random_state=0, warn_on_loss=False).fit(X, y)
    clf.save_params(f_params=tmp_path / "params.pt")
    clf.load_params(f_params=tmp_path / "params.pt")
    assert not hasattr(clf, "reference_score_")


def test_copies_keep_the_scores_and_no_rows(lossy):
    clf = lossy[0]
    content = skops.io.dumps(clf)
    types = skops.io.get_untrusted_types(data=content)
    for twin in (
        pickle.loads(pickle.dumps(clf)),
        copy.deepcopy(clf),
        skops.io.loads(content, trusted=types),
    ):
        assert twin.reference_score_ == clf.reference_score_
        assert twin.training_score_ == clf.training_score_
    assert "_reference" not in vars(clf)


def test_the_loss_is_shown(lossy, monkeypatch):
    clf = lossy[0]
    # A real estimate compiles and times circuits.
    cost = CostEstimate("concrete-python", "kernels", 8, (2,), 1.0, 1.0, 0.2, (0.8,), 1, 1, 1)
    monkeypatch.setattr(NeuralNetClassifier, "estimate", lambda *_: cost)
    text = f"accuracy {clf.training_score_:.3f}, and {clf.reference_score_:.3f} before"
    assert text in clf._repr_html_()
    assert text in str(clf.report())
    assert text in clf.card().render()
