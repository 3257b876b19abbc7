"""Presets are parameters that the estimators take, from fast to accurate."""

from __future__ import annotations

import numpy as np
import pytest
from cases import blobs, needs_concrete_python, plane
from sklearn.datasets import load_iris

from cipherlearn import NeuralNetClassifier, NeuralNetRegressor, presets

ALL = [presets.LINEAR, presets.FAST, {}, presets.ACCURATE]


def test_each_has_more_bootstraps_than_the_one_before():
    X, y = load_iris(return_X_y=True)
    counts = [
        NeuralNetClassifier(**preset, max_epochs=2, random_state=0).fit(X, y).program_.n_bootstraps
        for preset in ALL
    ]
    assert counts == sorted(set(counts))
    assert counts[0] == 0
    assert counts[1] <= 8


@needs_concrete_python("keys for these sums take minutes")
@pytest.mark.parametrize("preset", ["LINEAR", "FAST"])
def test_encrypted_rows_give_the_clear_labels(preset):
    X, y = blobs()
    clf = NeuralNetClassifier(**getattr(presets, preset), max_epochs=5, random_state=0).fit(X, y)
    clf.compile()
    np.testing.assert_array_equal(clf.predict(X[:3], execute_in_fhe=True), clf.predict(X[:3]))


def test_they_are_for_regressors_too():
    X, y = plane()
    reg = NeuralNetRegressor(**presets.LINEAR, max_epochs=60, random_state=0).fit(X, y)
    assert reg.score(X, y) > 0.9
