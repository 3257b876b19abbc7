"""Weights and repetitions become the same training data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn._samples import merge_duplicates, sample_rows


def assert_same_data(a, b):
    for left, right in zip(a, b, strict=True):
        np.testing.assert_array_equal(left, right)


def test_data_without_weights_or_duplicates_come_back_as_they_are():
    X = np.array([[3.0, 1.0], [1.0, 2.0], [2.0, 0.0]])
    y = np.array([2, 0, 1])
    assert_same_data(merge_duplicates(X, y, np.ones(3)), (X, y, np.ones(3)))


def test_equal_rows_are_merged_and_their_weights_added():
    X = np.array([[5.0], [7.0], [5.0], [5.0]])
    y = np.array([1, 0, 1, 1])
    X_merged, y_merged, weight = merge_duplicates(X, y, np.array([1.0, 1.0, 2.0, 0.5]))
    order = np.argsort(X_merged.ravel())
    assert X_merged[order].ravel().tolist() == [5.0, 7.0]
    assert y_merged[order].tolist() == [1, 0]
    assert weight[order] / weight[order][1] == pytest.approx([3.5, 1.0])


def test_weights_have_mean_one():
    X = np.array([[5.0], [7.0], [9.0], [9.0]])
    weight = merge_duplicates(X, np.zeros(4), np.array([4.0, 1.0, 0.0, 7.0]))[2]
    assert sorted(weight) == [0.25, 1.0, 1.75]


def test_rows_of_weight_zero_are_dropped():
    X = np.array([[5.0], [7.0], [9.0]])
    X_merged, y_merged, weight = merge_duplicates(X, np.arange(3), np.array([1.0, 0.0, 1.0]))
    assert X_merged.ravel().tolist() == [5.0, 9.0]
    assert y_merged.tolist() == [0, 2]
    assert weight.tolist() == [1.0, 1.0]


def test_equal_features_with_different_targets_stay_apart():
    X = np.array([[5.0], [5.0], [5.0]])
    X_merged, y_merged, weight = merge_duplicates(X, np.array([0, 1, 0]), np.ones(3))
    assert X_merged.ravel().tolist() == [5.0, 5.0]
    assert dict(zip(y_merged.tolist(), weight.tolist(), strict=True)) == {0: 4 / 3, 1: 2 / 3}


def test_targets_of_two_columns_keep_their_shape():
    X = np.array([[1.0], [1.0], [2.0]])
    y = np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 3.0]])
    X_merged, y_merged, weight = merge_duplicates(X, y, np.ones(3))
    order = np.argsort(X_merged.ravel())
    assert y_merged[order].tolist() == [[1.0, 2.0], [1.0, 3.0]]
    assert weight[order] == pytest.approx([4 / 3, 2 / 3])


@given(
    repeats=st.lists(st.integers(0, 3), min_size=2, max_size=12).filter(any),
    seed=st.integers(0, 1000),
)
def test_an_integer_weight_is_the_same_as_repeating_the_row(repeats, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(len(repeats), 2))
    y = rng.integers(0, 2, len(repeats))
    repeated = merge_duplicates(X.repeat(repeats, axis=0), y.repeat(repeats), np.ones(sum(repeats)))
    assert_same_data(merge_duplicates(X, y, np.array(repeats, dtype=float)), repeated)


@given(seed=st.integers(0, 1000))
def test_the_order_of_weighted_rows_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(9, 2)), rng.integers(0, 2, 9)
    weight = rng.permutation(9) + 1.0
    order = rng.permutation(9)
    given_order = merge_duplicates(X, y, weight)
    assert_same_data(merge_duplicates(X[order], y[order], weight[order]), given_order)


def test_the_arguments_are_not_changed():
    X, y, weight = np.array([[1.0], [1.0]]), np.array([0, 0]), np.array([2.0, 4.0])
    merge_duplicates(X, y, weight)
    assert weight.tolist() == [2.0, 4.0]
    assert X.tolist() == [[1.0], [1.0]]


def test_a_sample_of_rows_is_spread_over_all_of_them():
    rows = sample_rows(10_000, 100)
    assert len(np.unique(rows)) == 100
    assert 4000 < rows.mean() < 6000
    assert rows.tolist() == sample_rows(10_000, 100).tolist()
