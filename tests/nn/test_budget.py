"""Ω, budgets and fan-in, against values computed by hand and by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn import max_active_neurons
from cipherlearn.nn._budget import fan_in, l1_limit, neuron_budget


@pytest.mark.parametrize(
    ("n_max", "n_weights", "n_inputs", "expected"),
    [
        (8, 2, 2, 28),  # 255 // 9
        (8, 2, 3, 12),  # 255 // 21
        (8, 3, 2, 12),
        (4, 2, 2, 1),  # 15 // 9
        (5, 2, 2, 3),  # 31 // 9
        (6, 2, 2, 7),  # 63 // 9
        (7, 2, 3, 6),  # 127 // 21
        (8, 1, 1, 255),
        (1, 1, 1, 1),
        (16, 8, 8, 1),  # 65535 // 65025
        (16, 2, 2, 7281),
        (3, 2, 2, 0),  # 7 // 9
        (15, 8, 8, 0),
    ],
)
def test_omega_equals_the_value_computed_by_hand(n_max, n_weights, n_inputs, expected):
    assert max_active_neurons(n_max, n_weights, n_inputs) == expected


@given(n_max=st.integers(1, 40), n_weights=st.integers(1, 16), n_inputs=st.integers(1, 16))
def test_omega_largest_products_fit_and_one_more_does_not(n_max, n_weights, n_inputs):
    omega = max_active_neurons(n_max, n_weights, n_inputs)
    largest_weight, largest_input = 2**n_weights - 1, 2**n_inputs - 1
    assert sum([largest_weight * largest_input] * min(omega, 1000)) < 2**n_max
    assert omega * largest_weight * largest_input < 2**n_max
    assert (omega + 1) * largest_weight * largest_input >= 2**n_max


@pytest.mark.parametrize("name", ["n_max", "n_weights", "n_inputs"])
@pytest.mark.parametrize("value", [0, -1, 2.0, "2", None, True])
def test_a_width_that_is_not_a_positive_integer_is_refused(name, value):
    widths = {"n_max": 8, "n_weights": 2, "n_inputs": 2, name: value}
    with pytest.raises(ValueError, match=f"^{name} must be a positive integer number of bits"):
        max_active_neurons(**widths)


def test_numpy_integers_are_widths():
    assert max_active_neurons(np.int64(8), np.int32(2), np.int64(2)) == 28


@pytest.mark.parametrize(
    ("multiplier", "expected"), [(1, 28), (1.0, 28), (0.5, 14), (0.99, 27), (1.1, 30), (3.0, 84)]
)
def test_budget_is_the_floor_of_multiplier_times_omega(multiplier, expected):
    assert neuron_budget(8, 2, 2, multiplier) == expected


def test_smallest_budget_is_one():
    assert neuron_budget(8, 2, 2, multiplier=1 / 28) == 1


@pytest.mark.parametrize("multiplier", [np.float64(0.5), np.float32(0.5)])
def test_numpy_floats_are_multipliers(multiplier):
    assert neuron_budget(8, 2, 2, multiplier) == 14


def test_numpy_integers_are_multipliers():
    assert neuron_budget(8, 2, 2, np.int64(2)) == 56


@pytest.mark.parametrize(
    ("bits", "multiplier", "product"),
    [((3, 2, 2), 1.0, "1.0 \\* 0"), ((8, 2, 2), 0.03, "0.03 \\* 28")],
)
def test_a_budget_of_zero_is_an_error_that_says_what_to_change(bits, multiplier, product):
    n_max, n_weights, n_inputs = bits
    with pytest.raises(ValueError, match="must be at least 1") as error:
        neuron_budget(*bits, multiplier)
    assert error.match(f"floor\\({product}\\) = 0")
    assert error.match(
        f"with {n_max} accumulator bits, {n_weights} weight bits and {n_inputs} input bits"
    )
    assert error.match(
        "Raise n_accum_bits or n_hidden_neurons_multiplier, or lower n_w_bits or n_a_bits"
    )


@pytest.mark.parametrize("multiplier", [0, -1.0, float("nan"), float("inf"), "1", None])
def test_a_multiplier_that_is_not_positive_and_finite_is_refused(multiplier):
    with pytest.raises(
        ValueError, match=r"^n_hidden_neurons_multiplier must be a positive finite number"
    ):
        neuron_budget(8, 2, 2, multiplier)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((16, 30), 30),
        ((8, 3, 5, 5), 75),
        ((4, 1, 1, 1), 1),
        ((2, 6, 3), 18),
        ((7, 4, 2, 3), 24),
    ],
)
def test_fan_in_counts_the_products_of_one_output(shape, expected):
    assert fan_in(shape) == expected


def test_fan_in_takes_a_torch_shape():
    assert fan_in(torch.nn.Conv2d(3, 8, kernel_size=(5, 2)).weight.shape) == 30
    assert fan_in(torch.nn.Linear(30, 16).weight.shape) == 30


@pytest.mark.parametrize("shape", [(), (3,)])
def test_fan_in_needs_an_input_dimension(shape):
    with pytest.raises(ValueError, match="at least one input dimension"):
        fan_in(shape)


@given(
    n_weights=st.integers(1, 4),
    n_inputs=st.integers(1, 4),
    n_max=st.integers(8, 12),
    channels=st.integers(1, 4),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 2**32 - 1),
    worst=st.booleans(),
)
def test_a_convolution_within_its_budget_cannot_overflow(
    n_weights, n_inputs, n_max, channels, kernel, seed, worst
):
    rng = np.random.default_rng(seed)
    largest_weight, largest_input = 2**n_weights - 1, 2**n_inputs - 1
    shape = (3, channels, *kernel)
    n_nonzero = min(neuron_budget(n_max, n_weights, n_inputs), fan_in(shape))
    filters = np.zeros((3, fan_in(shape)))
    for row in filters:
        chosen = rng.choice(fan_in(shape), n_nonzero, replace=False)
        if worst:
            row[chosen] = rng.choice([-1, 1]) * largest_weight
        else:
            row[chosen] = rng.integers(-largest_weight, largest_weight, n_nonzero, endpoint=True)
    images = rng.integers(0, largest_input, (2, channels, 6, 6), endpoint=True)
    if worst:
        images[:] = largest_input
    sums = torch.nn.functional.conv2d(
        torch.from_numpy(images.astype(np.float64)), torch.from_numpy(filters.reshape(shape))
    )
    assert sums.abs().max() < 2**n_max
    if worst:
        assert sums.abs().min() == n_nonzero * largest_weight * largest_input


@pytest.mark.parametrize(
    ("n_max", "n_inputs", "expected"),
    [(4, 2, 5), (5, 2, 10), (6, 2, 21), (8, 1, 255), (8, 8, 1), (3, 3, 1), (1, 1, 1)],
)
def test_the_limit_on_magnitudes_equals_the_value_computed_by_hand(n_max, n_inputs, expected):
    assert l1_limit(n_max, n_inputs) == expected


@given(n_max=st.integers(1, 30), n_inputs=st.integers(1, 12), seed=st.integers(0, 2**32 - 1))
def test_weights_within_the_limit_on_magnitudes_fit_and_one_more_level_does_not(
    n_max, n_inputs, seed
):
    if n_inputs > n_max:
        with pytest.raises(ValueError, match=f"at least one {n_inputs}-bit input"):
            l1_limit(n_max, n_inputs)
        return
    limit = l1_limit(n_max, n_inputs)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(limit, np.full(5, 0.2)) * rng.choice([-1, 1], 5)
    largest = 2**n_inputs - 1
    high, low = weights[weights > 0].sum() * largest, weights[weights < 0].sum() * largest
    assert high - low < 2**n_max
    assert high - low + largest >= 2**n_max
