"""How features become codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cipherlearn import SparseQuantNeuralNetImpl
from cipherlearn.lowering._lower import lower
from cipherlearn.nn._components import PrincipalComponents
from cipherlearn.nn._encoder import (
    PLACEMENTS,
    InputEncoder,
    fit_encoders,
    n_codes_per_feature,
    place_thresholds,
)

finite = st.floats(allow_nan=False, allow_infinity=False)


def encoded(values, n_bits=2, n_codes=2, placement="mixed"):
    encoder = InputEncoder(1, n_bits, n_codes, placement)
    X = torch.tensor(values, dtype=torch.float64)[:, None]
    fit_encoders([encoder], PrincipalComponents(X.shape[1], 0), X)
    return encoder, encoder.codes(X)


@pytest.mark.parametrize("placement", PLACEMENTS)
@given(values=arrays(np.float64, st.integers(1, 60), elements=finite), n=st.integers(1, 9))
def test_thresholds_ascend_and_are_finite(values, n, placement):
    thresholds = place_thresholds(values, n, placement)
    assert len(thresholds) <= n
    assert np.isfinite(thresholds).all()
    assert (np.diff(thresholds) >= 0).all()


@given(values=arrays(np.float64, st.integers(1, 30), elements=finite))
def test_enough_thresholds_tell_all_values_apart(values):
    distinct = np.unique(values)
    thresholds = place_thresholds(values, len(distinct), "mixed")
    reached = (distinct[:, None] >= thresholds).sum(axis=1)
    assert reached.tolist() == list(range(len(distinct)))


@pytest.mark.parametrize("placement", PLACEMENTS)
@given(start=st.floats(1e-300, 1e300), n=st.integers(20, 60), seed=st.integers(0, 99))
def test_values_a_few_floats_apart_keep_their_order(start, n, seed, placement):
    values = start + np.spacing(start) * np.arange(n)
    assert (np.diff(place_thresholds(values, 17, placement)) >= 0).all()


def test_thresholds_see_every_row_of_large_periodic_data():
    module = SparseQuantNeuralNetImpl(10, 2)
    X = torch.zeros(60_000, 10, dtype=torch.float64)
    X[:, 0] = torch.arange(60_000) % 24
    X[17, 1] = 1.0
    module.fit_encoder(X)
    assert int(module.encoders[0].thresholds[0].isfinite().sum()) == 23
    assert int(module.encoders[0].thresholds[1].isfinite().sum()) == 1


def test_uniform_thresholds_are_evenly_spaced_and_ignore_outliers():
    values = np.append(np.arange(1000.0), 1e9)
    gaps = np.diff(place_thresholds(values, 5, "uniform"))
    assert np.allclose(gaps, gaps[0])
    assert 150 < gaps[0] < 250


def test_quantile_thresholds_have_equally_many_values_between_them():
    values = np.random.default_rng(0).lognormal(size=1000)
    thresholds = place_thresholds(values, 3, "quantile")
    counts = np.histogram(values, [0, *thresholds, np.inf])[0]
    assert counts.min() >= 245


def test_mixed_thresholds_are_the_means_of_both():
    values = np.random.default_rng(0).lognormal(size=1000)
    uniform, quantile, mixed = (
        place_thresholds(values, 7, placement) for placement in ("uniform", "quantile", "mixed")
    )
    assert np.allclose(mixed, (uniform + quantile) / 2)


def test_codes_share_out_the_thresholds_as_a_thermometer():
    encoder, codes = encoded(np.arange(7.0))
    assert codes.tolist() == [[0, 0], [1, 0], [2, 0], [3, 0], [3, 1], [3, 2], [3, 3]]
    assert encoder.largest.tolist() == [3, 3]


def test_a_feature_of_two_values_uses_one_level_of_one_code():
    encoder, codes = encoded([0.0, 1.0, 1.0], n_codes=3)
    assert codes.tolist() == [[0, 0, 0], [1, 0, 0], [1, 0, 0]]
    assert encoder.largest.tolist() == [1, 0, 0]


def test_a_constant_feature_gets_code_zero():
    encoder, codes = encoded([7.0, 7.0, 7.0])
    assert codes.tolist() == [[0, 0]] * 3
    far = torch.tensor([[1e300], [-1e300], [torch.inf]], dtype=torch.float64)
    assert encoder.codes(far).tolist() == [[0, 0]] * 3


def test_rare_values_of_a_nearly_constant_feature_keep_codes_of_their_own():
    _, codes = encoded([*[0.0] * 1000, 6.0])
    assert codes[0].tolist() != codes[-1].tolist()


def test_values_beyond_the_training_data_get_the_end_codes():
    encoder, _ = encoded(np.arange(100.0))
    far = torch.tensor([[-1e9], [1e9], [-torch.inf], [torch.inf]], dtype=torch.float64)
    assert encoder.codes(far).tolist() == [[0, 0], [3, 3], [0, 0], [3, 3]]


def test_raw_data_with_a_large_mean_keep_their_information():
    _, codes = encoded(1e9 + np.arange(7.0))
    assert codes.sum(dim=1).tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_float_codes_are_centred_and_scaled():
    rng = np.random.default_rng(0)
    encoder = InputEncoder(3, 2, 2, "mixed")
    X = torch.from_numpy(rng.lognormal(size=(500, 3)))
    fit_encoders([encoder], PrincipalComponents(X.shape[1], 0), X)
    units = encoder(X)
    torch.testing.assert_close(units.mean(dim=0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(units.std(dim=0, unbiased=False), torch.ones(6))


@pytest.mark.parametrize(("n_features", "n_bits", "expected"), [(1, 2, 16), (30, 2, 7), (9, 1, 48)])
def test_few_features_get_more_codes_than_many(n_features, n_bits, expected):
    assert n_codes_per_feature(n_features, n_bits) == expected
    module = SparseQuantNeuralNetImpl(n_features, 1, n_a_bits=n_bits)
    assert module.linears[0].in_features == n_features * expected


def test_the_number_of_codes_can_be_chosen():
    module = SparseQuantNeuralNetImpl(5, 1, n_codes_per_feature=2)
    assert module.linears[0].in_features == 10


@pytest.mark.parametrize("n_codes", [0, 1.5, "many", None, True])
def test_a_number_of_codes_must_be_positive(n_codes):
    with pytest.raises(ValueError, match='unless "auto", must be an integer of at least 1'):
        SparseQuantNeuralNetImpl(5, 1, n_codes_per_feature=n_codes)


def test_an_unknown_placement_is_refused():
    with pytest.raises(ValueError, match=r"threshold_placement must be one of .* Got 'even'"):
        SparseQuantNeuralNetImpl(5, 1, threshold_placement="even")


@given(
    X=arrays(np.float64, (20, 2), elements=st.floats(-1e6, 1e6)),
    rows=arrays(np.float64, (10, 2), elements=finite),
    n_bits=st.integers(1, 4),
    n_codes=st.integers(1, 3),
)
def test_torch_and_numpy_give_the_same_codes(X, rows, n_bits, n_codes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = SparseQuantNeuralNetImpl(
            2, 1, n_layers=1, n_a_bits=n_bits, n_codes_per_feature=n_codes, pruning=False
        )
    module.fit_encoder(torch.from_numpy(X))
    module.calibrate(torch.from_numpy(X))
    program = lower(module)
    for data in (X, rows):
        codes = module.encoders[0].codes(torch.from_numpy(data)).numpy()
        used = (module.linears[0].effective_weight() != 0).any(dim=0).numpy()
        if used.any():
            assert (program.quantize(data) == codes[:, used]).all()
        outputs = module(torch.from_numpy(data)).detach().numpy()
        assert (program(data) == outputs).all()
