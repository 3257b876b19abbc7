"""When components of the features are encoded."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from cases import NO_TEACHER

from cipherlearn import NeuralNetClassifier, NeuralNetRegressor
from cipherlearn.training._components import choose_components


def differences(n_rows=300, n_features=30, seed=0):
    """Similar features, and a target that is told by their small differences."""
    rng = np.random.default_rng(seed)
    common, single = rng.normal(size=(n_rows, 1)), rng.normal(size=(n_rows, n_features))
    return 3 * common + 0.3 * single, single @ np.sin(np.arange(n_features))


def test_a_target_of_small_differences_is_learned_from_components():
    X, y = differences()
    scores = []
    for n in (0, "auto"):
        reg = NeuralNetRegressor(module__n_components=n, random_state=0, **NO_TEACHER)
        scores.append(reg.fit(X[:200], y[:200]).score(X[200:], y[200:]))
    assert reg.n_components_ == reg.program_.quantizer.n_components == 30
    assert scores[1] > scores[0] + 0.05


@pytest.mark.parametrize("seed", range(3))
def test_noise_and_single_features_get_none(seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(300, 10))
    ones = np.ones(300)
    assert choose_components(X, rng.normal(size=300), ones) == 0
    assert choose_components(X, np.abs(X[:, 2]), ones) == 0
    assert choose_components(X, (X[:, 3] > 1).astype(np.int64), ones) == 0


def test_sparse_and_classes_and_weights_choose_as_well():
    X, y = differences()
    classes, ones = np.digitize(y, [-1, 1]), np.ones(300)
    assert choose_components(X, classes, ones) == 30
    assert choose_components(sp.csr_matrix(X), classes, ones) == 30
    # The rows that count are those of another target.
    weight, other = np.repeat([1.0, 1e-6], 150), np.where(np.arange(300) < 150, X[:, 0], y)
    assert choose_components(X, other, weight) == 0


@pytest.mark.parametrize(("n_rows", "n_features"), [(300, 1), (19, 5), (30, 2001)])
def test_none_where_they_make_no_sense(n_rows, n_features):
    X, y = differences(n_rows, n_features)
    assert choose_components(X, y, np.ones(n_rows)) == 0


def test_a_number_is_taken_as_it_is():
    X, y = differences(60, 5)
    for n in (0, 3):
        clf = NeuralNetClassifier(module__n_components=n, max_epochs=3, random_state=0)
        assert clf.fit(X, y > 0).n_components_ == n
        assert len(clf.module_.components.weights) == n
