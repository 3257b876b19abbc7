"""Removing what cannot change an output changes no output."""

from __future__ import annotations

import numpy as np
import torch
from cases import far_and_near, random_module, rounding_quantizer
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn import IntegerProgram
from cipherlearn.lowering._lower import lower
from cipherlearn.program._decoder import OutputScaler
from cipherlearn.program._layer import IntegerLayer
from cipherlearn.program._passes import simplify

EVERY_CODE = np.stack(np.meshgrid(*[np.arange(4)] * 3), axis=-1).reshape(-1, 3)


@st.composite
def programs(draw):
    """Three 2-bit features, up to two hidden layers, many zero weights and constant tables."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.0, 0.2, 0.5, 1.0]))
    n_inputs, low, high = 3, np.zeros(3, dtype=int), np.full(3, 3)
    layers = []
    for n_neurons in draw(st.lists(st.integers(1, 4), max_size=2)):
        weights = rng.integers(-2, 3, (n_neurons, n_inputs)) * (
            rng.random((n_neurons, n_inputs)) < density
        )
        size = int((np.abs(weights) @ (high - low)).max()) + 1
        tables = rng.integers(0, 4, (n_neurons, size))
        constant = rng.random(n_neurons) < 0.4
        tables[constant] = tables[constant, :1]
        layers.append(IntegerLayer(weights, low, high, tables=tables))
        ranges = layers[-1].table_ranges
        low, high = (np.array([getattr(r, end) for r in ranges]) for end in ("low", "high"))
        n_inputs = n_neurons
    weights = rng.integers(-3, 4, (2, n_inputs)) * (rng.random((2, n_inputs)) < density)
    layers.append(IntegerLayer(weights, low, high))
    quantizer = rounding_quantizer(np.zeros(3), np.ones(3), 2)
    scaler = OutputScaler(rng.normal(size=2), rng.normal(size=2), rng.integers(-5, 5, 2))
    return IntegerProgram.chain(quantizer, tuple(layers), scaler)


@given(programs())
def test_a_simplified_program_gives_the_same_outputs(program):
    smaller = simplify(program)
    np.testing.assert_array_equal(smaller(EVERY_CODE), program(EVERY_CODE))
    assert smaller.n_bootstraps <= program.n_bootstraps
    assert smaller.n_codes <= program.n_codes
    assert smaller.n_features == program.n_features


@given(programs())
def test_nothing_more_can_be_removed_from_a_simplified_program(program):
    once = simplify(program)
    twice = simplify(once)
    assert twice.n_codes == once.n_codes
    assert twice.n_bootstraps == once.n_bootstraps


def test_unread_and_constant_neurons_and_unread_codes_are_removed():
    hidden = IntegerLayer(
        [[1, 0, 0], [1, 0, -1], [0, 1, 0]],
        [0, 0, 0],
        [3, 3, 3],
        # A neuron that varies, one that is always 2, and one that nothing reads.
        tables=[[0, 1, 2, 3, 0, 0, 0], [2] * 7, [0, 1, 2, 3, 0, 0, 0]],
    )
    last = IntegerLayer([[1, -3, 0]], [0, 2, 0], [3, 2, 3])
    quantizer = rounding_quantizer(np.zeros(3), np.ones(3), 2)
    program = IntegerProgram.chain(quantizer, (hidden, last), OutputScaler([0.5], [1.0]))
    smaller = simplify(program)
    assert smaller.n_bootstraps == 1
    assert smaller.quantizer.feature.tolist() == [0]
    assert smaller.layers[0].weights.tolist() == [[1]]
    assert smaller.layers[1].weights.tolist() == [[1]]
    assert smaller.layers[1].constant.tolist() == [-6]
    np.testing.assert_array_equal(smaller(EVERY_CODE), program(EVERY_CODE))


def test_lowering_leaves_out_a_dead_neuron():
    module, X = random_module(1, n_hidden_neurons=4)
    alive = lower(module).n_bootstraps
    module.linears[1].mask[:, 0] = 0
    program = lower(module)
    assert program.n_bootstraps == alive - 1
    rows = far_and_near(X, 50, seed=0)
    np.testing.assert_array_equal(program(rows), module_outputs(module, rows))


def module_outputs(module, rows):
    with torch.no_grad():
        return module(torch.from_numpy(rows)).numpy()
