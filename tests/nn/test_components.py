"""Principal components: what they are learned from, and that every machine computes the same."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from cases import far_and_near, random_module
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from cipherlearn.lowering._lower import lower
from cipherlearn.nn._components import PrincipalComponents
from cipherlearn.program._components import LARGEST_POSITION, LARGEST_WEIGHTS, Components
from cipherlearn.program._encoder import InputQuantizer


def fitted(X, n_components=32) -> PrincipalComponents:
    module = PrincipalComponents(X.shape[1], min(n_components, X.shape[1]))
    module.fit(X if sp.issparse(X) else torch.from_numpy(X))
    return module


def mixed(n_rows=500, n_features=6, seed=0):
    """Correlated features, in units of their own."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, n_features)) * 0.9 ** np.arange(n_features)
    return X @ rng.normal(size=(n_features, n_features)) * 10.0 ** np.arange(n_features)


def as_program(module: PrincipalComponents) -> Components:
    weights = module.weights.to(torch.int64).numpy()
    return Components(module.factor.numpy(), module.shift.numpy(), weights)


def test_they_are_the_principal_components_of_standardized_features():
    X = mixed()
    ours = fitted(X, 4).components(torch.from_numpy(X)).numpy()
    theirs = PCA(4).fit_transform(StandardScaler().fit_transform(X))
    correlation = np.corrcoef(ours.T, theirs.T)[:4, 4:]
    np.testing.assert_allclose(abs(np.diag(correlation)), 1, atol=0.02)


@given(seed=st.integers(0, 99), n_features=st.integers(2, 40))
def test_torch_and_numpy_give_the_same_integers(seed, n_features):
    X = mixed(60, n_features, seed)
    module, rows = fitted(X), far_and_near(X, 30, seed)
    ours = module.components(torch.from_numpy(rows)).numpy()
    np.testing.assert_array_equal(ours, np.rint(ours))
    np.testing.assert_array_equal(as_program(module)(rows), ours)


@given(
    rows=arrays(np.float64, (4, 3), elements=st.floats(allow_nan=False)),
    factor=arrays(np.float64, 3, elements=st.floats(1e-300, 1e300)),
    shift=arrays(np.float64, 3, elements=st.floats(-1e9, 1e9)),
    weights=arrays(np.int64, (2, 3), elements=st.integers(-(2**26), 2**26)),
)
def test_sums_are_exact_whatever_the_features(rows, factor, shift, weights):
    components = Components(factor, shift, weights)
    for row, got in zip(rows, components(rows), strict=True):
        with np.errstate(over="ignore"):
            positions = [
                round(min(max(x * f - s, -LARGEST_POSITION), LARGEST_POSITION))
                for x, f, s in zip(row, factor, shift, strict=True)
            ]
        exact = [sum(int(w) * p for w, p in zip(row, positions, strict=True)) for row in weights]
        assert got.tolist() == exact


def test_the_largest_sum_is_below_what_floats_hold_exactly():
    assert LARGEST_POSITION * LARGEST_WEIGHTS < 2**53
    weights = fitted(np.random.default_rng(0).normal(size=(100, 300))).weights
    assert weights.abs().sum(dim=1).max() <= LARGEST_WEIGHTS


def test_the_unit_of_a_feature_and_outliers_hardly_matter():
    X = mixed()
    scaled = 1e9 * X + 5
    outliers = X.copy()
    outliers[:2, 3] = 1e12
    plain = fitted(X).components(torch.from_numpy(X)).numpy()
    for rows in (scaled, outliers):
        other = fitted(rows).components(torch.from_numpy(rows)).numpy()
        correlation = np.corrcoef(plain[2:, :2].T, other[2:, :2].T)[:2, 2:]
        np.testing.assert_allclose(abs(np.diag(correlation)), 1, atol=0.05)


@pytest.mark.parametrize("extreme", [0.0, 1e300, -1e308, 1e-310])
def test_a_constant_feature_and_extreme_values_take_no_part(extreme):
    X = mixed()
    X[:, 2] = extreme
    X[:5, 4] = 1e308
    module = fitted(X)
    assert torch.isfinite(module.factor).all()
    assert (module.factor > 0).all()
    assert not module.weights[:, 2].any()
    assert module.weights[0].any()
    as_program(module)


def test_components_that_the_data_lacks_are_zero():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 2)) @ rng.normal(size=(2, 8))
    assert fitted(X).weights.any(dim=1).tolist() == [True] * 2 + [False] * 6
    assert not fitted(X[:1]).weights.any()


def test_sparse_features_have_the_components_of_dense_ones():
    X = mixed() * (np.random.default_rng(1).random((500, 6)) < 0.4)
    np.testing.assert_array_equal(fitted(sp.csr_matrix(X)).weights, fitted(X).weights)


def test_a_wrong_number_is_refused():
    with pytest.raises(ValueError, match=r"n_components must be .* Got -1"):
        PrincipalComponents(3, -1)
    with pytest.raises(ValueError, match=r"more than 2000 features. Got 5 for 2001"):
        PrincipalComponents(2001, 5)
    with pytest.raises(ValueError, match=r"at most as many components as codes. Got 3 and 1"):
        InputQuantizer(1, [0], [[0.5]], Components([1.0], [0.0], [[1]] * 3))


def test_there_are_at_most_as_many_as_features():
    assert len(PrincipalComponents(3, 50).weights) == 3


def test_nothing_is_left_of_a_former_fit():
    X = mixed()
    module = fitted(X)
    module.fit(torch.from_numpy(X[:, :1] * np.ones(6)))
    assert module.weights.any(dim=1).tolist() == [True] + [False] * 5


def test_codes_of_no_feature_at_all_are_computed_for_sparse_rows():
    quantizer = InputQuantizer(2, [2], [[-1.0]], Components([1.0, 1.0], [0.0, 0.0], [[0, 0]]))
    assert quantizer(sp.csr_matrix((3, 2))).tolist() == quantizer(np.zeros((3, 2))).tolist()


@pytest.mark.parametrize("n_layers", [1, 2])
def test_the_program_equals_the_module_in_every_component(n_layers):
    module, X = random_module(0, n_features=5, n_layers=n_layers, n_components=4)
    program = lower(module)
    assert program.quantizer.n_components == 4
    rows = far_and_near(X, 200, seed=1)
    with torch.no_grad():
        expected = module(torch.from_numpy(rows)).numpy()
    np.testing.assert_array_equal(program(rows), expected)
    np.testing.assert_array_equal(program(sp.csr_matrix(rows)), expected)


def test_components_that_no_code_reads_are_dropped():
    module, _ = random_module(0, n_features=5, n_layers=1, n_components=4)
    quantizer = lower(module).quantizer
    kept = quantizer.take(quantizer.feature != 6)
    assert kept.n_components == 3
    X = np.random.default_rng(0).normal(100, 5, (20, 5))
    np.testing.assert_array_equal(kept(X), quantizer(X)[:, quantizer.feature != 6])
    assert quantizer.take(quantizer.feature < 5).components is None
