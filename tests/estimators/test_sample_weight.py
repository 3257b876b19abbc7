"""Weights of rows."""

from __future__ import annotations

import numpy as np
import pytest
from cases import blobs, classifier, plane, quick, regressor, same_network


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
