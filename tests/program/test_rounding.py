"""Rounded accumulators: trained, lowered, compiled, with nothing that wraps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import blobs, needs_concrete_python, needs_engine, random_module
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn import Circuit, NeuralNetClassifier, SparseQuantNeuralNetImpl
from cipherlearn.lowering._lower import lower
from cipherlearn.program._decoder import OutputScaler
from cipherlearn.program._encoder import InputQuantizer
from cipherlearn.program._layer import IntegerLayer
from cipherlearn.program._program import IntegerProgram


def rounded_program(weights, lsbs, n_levels=4, seed=0):
    """One-threshold codes, and a hidden layer of random tables that see rounded sums."""
    rng = np.random.default_rng(seed)
    weights = np.atleast_2d(weights)
    n_neurons, n_inputs = weights.shape
    ones = np.ones(n_inputs, dtype=int)
    plain = IntegerLayer(weights, 0 * ones, ones)
    size = int((plain.high - plain.low).max()) + 1
    sums = plain.low[:, None] + np.arange(size)
    half = 2**lsbs // 2
    cells = np.floor_divide(sums + half, 2**lsbs)
    by_cell = rng.integers(0, n_levels, (n_neurons, int(np.ptp(cells)) + 1))
    tables = np.take_along_axis(by_cell, cells - cells.min(), axis=1)
    hidden = IntegerLayer(weights, 0 * ones, ones, tables, lsbs)
    high = np.full(n_neurons, n_levels - 1)
    last = IntegerLayer(np.ones((1, n_neurons), dtype=int), 0 * high, high)
    quantizer = InputQuantizer(n_inputs, np.arange(n_inputs), np.full((n_inputs, 1), 0.5))
    return IntegerProgram.chain(quantizer, (hidden, last), OutputScaler([1.0], [0.0]))


def extremes(program):
    """Rows that drive every hidden sum to both of its ends."""
    weights = program.layers[0].weights
    return np.concatenate([weights > 0, weights < 0]).astype(np.int64)


# ---------------------------------------------------------------------- the integer program


@given(st.integers(-40, 40), st.integers(0, 4))
def test_a_cell_is_the_nearest_multiple_and_the_larger_of_two(value, lsbs):
    layer = rounded_program([[1]], 0).layers[0]
    object.__setattr__(layer, "lsbs_to_remove", lsbs)
    multiple = int(layer.cell(np.int64(value))) * 2**lsbs
    assert abs(multiple - value) <= 2**lsbs / 2
    assert multiple - value != -(2**lsbs) / 2


@pytest.mark.parametrize("lsbs", [1, 2])
def test_tables_that_see_removed_bits_are_refused(lsbs):
    tables = [[0, 1, 2, 3, 0, 1, 2, 3, 0]]
    with pytest.raises(ValueError, match=f"{lsbs} removed bits"):
        IntegerLayer([[1] * 8], [0] * 8, [1] * 8, tables, lsbs)


@pytest.mark.parametrize("lsbs", [-1, 53])
def test_a_number_of_bits_that_cannot_be_removed_is_refused(lsbs):
    with pytest.raises(ValueError, match=f"at most 52. Got {lsbs}"):
        IntegerLayer([[1]], [0], [1], [[0, 0]], lsbs)


def test_the_last_layer_rounds_nothing():
    with pytest.raises(ValueError, match="Only a layer with tables"):
        IntegerLayer([[1]], [0], [1], None, 1)


# ---------------------------------------------------------------------- training


@pytest.mark.parametrize(("accum", "kept"), [(5, 4), (6, 4), (6, 2), (5, 6), (4, 4)])
def test_tables_see_no_more_bits_than_asked_whatever_the_weights(accum, kept):
    module, X = random_module(0, n_hidden_accum_bits=accum, rounding_bits=kept, n_layers=3)
    program = lower(module)
    assert len(program.hidden_layers) == 2
    for layer in program.hidden_layers:
        assert layer.n_accum_bits <= accum
        assert layer.n_table_bits <= min(kept, accum)
        assert layer.lsbs_to_remove == max(0, accum - kept)
    np.testing.assert_array_equal(program(X), module.eval()(torch.as_tensor(X)).detach().numpy())


def test_training_knows_the_noise_of_rounding_and_evaluation_does_not():
    module, X = random_module(0, n_hidden_accum_bits=6, rounding_bits=3)
    X = torch.as_tensor(X)
    assert (module.eval()(X) == module.eval()(X)).all()
    assert (module.train()(X) != module.train()(X)).any()


def test_rounding_that_leaves_no_room_for_a_weight_is_refused():
    with pytest.raises(ValueError, match="Raise rounding_bits or n_hidden_accum_bits"):
        SparseQuantNeuralNetImpl(4, 2, n_hidden_accum_bits=2, rounding_bits=1)


# ---------------------------------------------------------------------- ciphertexts


@needs_engine
@pytest.mark.parametrize("lsbs", [1, 2, 3])
@pytest.mark.parametrize(
    "rounding",
    [
        "exact",
        pytest.param("approximate", marks=needs_concrete_python("no approximate rounding")),
    ],
)
def test_no_sum_wraps_at_either_end(lsbs, rounding):
    rng = np.random.default_rng(lsbs)
    # Odd and even smallest sums, which round up, down and not at all.
    weights = rng.choice([-1, 0, 1], (6, 14))
    program = rounded_program(weights, lsbs, n_levels=3)
    circuit = Circuit(program, [16, 16], rounding=rounding, batch_size=12)
    codes = extremes(program)
    expected = program.run(codes)
    result = circuit.execute(codes)
    if rounding == "exact":
        np.testing.assert_array_equal(result, expected)
        random = rng.integers(0, 2, (12, 14))
        np.testing.assert_array_equal(circuit.execute(random), program.run(random))
    else:
        # A sum in the middle of its cell cannot flip.
        sums = codes @ weights.T
        middle = (sums % 2**lsbs == 0).all(axis=1)
        np.testing.assert_array_equal(result[middle], expected[middle])


@needs_concrete_python("no approximate rounding")
def test_approximate_rounding_reports_how_often_it_flips():
    program = rounded_program(np.ones((4, 30), dtype=int), 3)
    exact = Circuit(program, [16, 16])
    approximate = Circuit(program, [16, 16], rounding="approximate")
    assert exact.flip_rate == 0.0
    assert 0 < approximate.flip_rate < 1
    assert approximate.n_bootstraps == 4
    assert exact.n_bootstraps == 4 * (1 + 3)
    codes = program.quantizer.random_codes(300, np.random.default_rng(1))
    simulated = (approximate.simulate(codes) != program.run(codes)).any(axis=1).mean()
    assert simulated == pytest.approx(approximate.flip_rate, abs=0.1)


@needs_concrete_python("no approximate rounding")
def test_without_removed_bits_approximate_rounding_changes_nothing():
    circuit = Circuit(rounded_program([[1, 1, -1]], 0), [16, 16], rounding="approximate")
    assert circuit.flip_rate == 0.0


@pytest.mark.parametrize("rounding", ["nearest", None, True])
def test_another_rounding_is_refused(rounding):
    with pytest.raises(ValueError, match='"exact" or "approximate"'):
        Circuit(rounded_program([[1]], 0), [16, 16], rounding=rounding)


@needs_engine
@pytest.mark.parametrize(
    "n_bits",
    [4, pytest.param(5, marks=needs_concrete_python("keys of 5 bits take a minute"))],
)
def test_a_trained_rounded_classifier_predicts_the_same_encrypted(n_bits):
    X, y = blobs()
    clf = NeuralNetClassifier(
        module__n_hidden_neurons=4,
        module__n_hidden_accum_bits=n_bits,
        module__rounding_bits=3,
        module__n_output_accum_bits=n_bits,
        max_epochs=15,
        random_state=0,
    ).fit(X, y)
    assert all(layer.n_accum_bits <= n_bits for layer in clf.program_.layers[:-1])
    assert clf.program_.layers[0].lsbs_to_remove == n_bits - 3
    clf.compile(batch_size=4)
    np.testing.assert_array_equal(clf.predict(X[:9], execute_in_fhe=True), clf.predict(X[:9]))
