"""The integer program: proven ranges, exactness, immutability."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import pickle

import numpy as np
import pytest
from cases import random_module, rounding_quantizer
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from memory import peak_below

from cipherlearn import IntegerProgram
from cipherlearn.lowering._lower import lower
from cipherlearn.program._decoder import OutputScaler
from cipherlearn.program._encoder import InputQuantizer
from cipherlearn.program._layer import IntegerLayer
from cipherlearn.program._values import IntegerRange


def linear_layer(weights, low=0, high=3):
    weights = np.atleast_2d(weights)
    n_inputs = weights.shape[1]
    return IntegerLayer(weights, np.full(n_inputs, low), np.full(n_inputs, high))


def small_program():
    """Two features of 2 bits, a hidden neuron ``max(a, 0)`` and one ``3 - a``, two outputs."""
    hidden = IntegerLayer(
        [[1, -1], [1, 0]],
        [0, 0],
        [3, 3],
        tables=[[0, 0, 0, 0, 1, 2, 3], [3, 2, 1, 0, 9, 9, 9]],
    )
    last = IntegerLayer([[1, 1], [-2, 0]], [0, 0], [3, 3])
    quantizer = rounding_quantizer([0.0, 10.0], [1.0, 0.5], 2)
    return IntegerProgram.chain(quantizer, (hidden, last), OutputScaler([0.5, 1.0], [0.0, 1.0]))


@st.composite
def layers_and_all_inputs(draw):
    """A small layer, maybe with tables, and every input in its ranges."""
    n_inputs = draw(st.integers(1, 4))
    n_neurons = draw(st.integers(1, 3))
    weights = draw(npst.arrays(np.int64, (n_neurons, n_inputs), elements=st.integers(-7, 7)))
    low = draw(npst.arrays(np.int64, n_inputs, elements=st.integers(-3, 3)))
    width = draw(npst.arrays(np.int64, n_inputs, elements=st.integers(0, 3)))
    inputs = itertools.product(*(range(a, a + w + 1) for a, w in zip(low, width, strict=True)))
    return IntegerLayer(weights, low, low + width), np.array(list(inputs), dtype=np.int64)


# ---------------------------------------------------------------------- ranges


@pytest.mark.parametrize(
    ("low", "high", "n_bits"),
    [
        (0, 0, 1),
        (5, 5, 1),
        (0, 1, 1),
        (-1, 0, 1),
        (0, 2, 2),
        (-1, 2, 2),
        (-2, 2, 3),
        (-30, 33, 6),
        (0, 63, 6),
        (0, 64, 7),
        (100, 163, 6),
        (-(2**40), 2**40, 42),
    ],
)
def test_bits_hold_the_width_of_a_range(low, high, n_bits):
    assert IntegerRange(low, high).n_bits == n_bits


@given(low=st.integers(-(2**40), 2**40), width=st.integers(0, 2**40))
def test_no_fewer_bits_hold_a_range(low, width):
    n_bits = IntegerRange(low, low + width).n_bits
    assert width < 2**n_bits
    assert n_bits == 1 or width >= 2 ** (n_bits - 1)


def test_an_empty_range_is_refused():
    with pytest.raises(ValueError, match=r"needs low <= high. Got 2 > 1"):
        IntegerRange(2, 1)


@given(layers_and_all_inputs())
def test_accumulator_ranges_are_attained_and_never_exceeded(layer_and_inputs):
    layer, inputs = layer_and_inputs
    sums = np.array([[sum(int(w) * int(x) for w, x in zip(neuron, row, strict=True))
                      for neuron in layer.weights] for row in inputs])  # fmt: skip
    assert layer.low.tolist() == sums.min(axis=0).tolist()
    assert layer.high.tolist() == sums.max(axis=0).tolist()
    np.testing.assert_array_equal(layer(inputs), sums)
    expected_bits = max(int(width).bit_length() for width in np.ptp(sums, axis=0))
    assert layer.n_accum_bits == max(1, expected_bits)


@given(layers_and_all_inputs(), st.integers(0, 2**32 - 1))
def test_table_ranges_are_attained_and_never_exceeded(layer_and_inputs, seed):
    layer, inputs = layer_and_inputs
    size = int((layer.high - layer.low).max()) + 1
    tables = np.random.default_rng(seed).integers(0, 16, (len(layer.weights), size))
    tabulated = IntegerLayer(layer.weights, layer.input_low, layer.input_high, tables=tables)
    sums = layer(inputs)
    expected = [
        [int(tables[j, a - layer.low[j]]) for j, a in enumerate(row)] for row in sums.tolist()
    ]
    codes = tabulated(inputs)
    assert codes.tolist() == expected
    for j, proven in enumerate(tabulated.table_ranges):
        # A sum between the extremes may be unreachable, so the range may be wider.
        assert proven.low <= codes[:, j].min()
        assert proven.high >= codes[:, j].max()


def test_table_entries_beyond_a_neurons_accumulators_do_not_widen_its_range():
    ranges = small_program().layers[0].table_ranges
    assert ranges == [IntegerRange(0, 3), IntegerRange(0, 3)]


@given(st.integers(0, 2**32 - 1))
def test_deep_programs_stay_in_their_proven_ranges(seed):
    module, _ = random_module(seed % 1000, n_features=2, n_layers=3, n_hidden_neurons=4)
    program = lower(module)
    largest = program.quantizer.largest
    codes = np.random.default_rng(seed).integers(0, largest + 1, (500, len(largest)))
    for layer, inputs, sums in program.trace(codes.T):
        np.testing.assert_array_equal(sums, layer.weights @ inputs + layer.constant[:, None])
        assert (sums >= layer.low[:, None]).all()
        assert (sums <= layer.high[:, None]).all()


def test_integer_outputs_of_a_program_worked_by_hand():
    program = small_program()
    # Codes (3, 0): hidden sums 3 and 3, codes 3 and 0. Codes (0, 3): -3 and 0, codes 0 and 3.
    # Codes (2, 1): 1 and 2, codes 1 and 1.
    accumulators = program.run(np.array([[3, 0], [0, 3], [2, 1]]))
    assert accumulators.tolist() == [[3, -6], [3, 0], [2, -2]]
    assert program.dequantize(accumulators).tolist() == [[1.5, -5.0], [1.5, 1.0], [1.0, -1.0]]
    assert program(np.array([[2.1, 10.4]])).tolist() == [[1.0, -1.0]]
    assert (program.n_features, program.n_outputs, program.n_bootstraps) == (2, 2, 2)


# ---------------------------------------------------------------------- exactness


@given(
    seed=st.integers(0, 2**32 - 1),
    n_inputs=st.integers(1, 300),
    largest=st.sampled_from([1, 127, 2**20]),
)
def test_sums_equal_those_of_64_bits(seed, n_inputs, largest):
    rng = np.random.default_rng(seed)
    weights = rng.integers(-largest, largest, (5, n_inputs), endpoint=True)
    codes = rng.integers(0, 255, (20, n_inputs), endpoint=True)
    layer = linear_layer(weights, high=255)
    result = layer(codes)
    assert result.dtype == np.int64
    np.testing.assert_array_equal(result, codes @ weights.T)


@given(layers_and_all_inputs(), st.integers(1, 3), st.sampled_from([0, 250, 2**40]), st.randoms())
def test_tables_are_looked_up_whatever_their_shape(layer_and_inputs, largest, base, random):
    layer, inputs = layer_and_inputs
    size = int((layer.high - layer.low).max()) + 1
    n_neurons = len(layer.weights)
    tables = [[base + random.randint(0, largest) for _ in range(size)] for _ in range(n_neurons)]
    layer = dataclasses.replace(layer, tables=np.array(tables))
    index = inputs @ layer.weights.T - layer.low
    np.testing.assert_array_equal(layer(inputs), layer.tables[np.arange(n_neurons), index])


@pytest.mark.parametrize("n_bits", [7, 15, 31])
def test_a_sum_as_large_as_its_integers_hold_reaches_no_further_step(n_bits):
    """A neuron whose table steps once, beside one whose table steps twice."""
    largest = 2**n_bits - 1
    low, high = np.array([0, 0]), np.array([largest, 3])
    if n_bits > 7:
        low = high - 3
    layer = IntegerLayer([[1, 0], [0, 1]], low, high)
    size = int((layer.high - layer.low).max()) + 1
    tables = np.zeros((2, size), dtype=int)
    tables[0, -1] = 1
    tables[1, 1:], tables[1, 2:] = 1, 2
    layer = dataclasses.replace(layer, tables=tables)
    codes = np.array([[largest, low[1]], [largest - 1, low[1] + 3]])
    assert layer(codes).tolist() == [[1, 0], [0, 2]]


@pytest.mark.parametrize(
    ("weights", "high"),
    [
        ([[2**53]], 1),
        ([[1, 1]], 2**53),
        # These add up to 2**64, which is 0 in int64.
        ([[2**62, 2**62, 2**62, 2**62]], 1),
    ],
)
def test_sums_that_integers_could_not_hold_are_refused(weights, high):
    with pytest.raises(ValueError, match=r"below 2\*\*53"):
        linear_layer(weights, low=0, high=high)


def test_the_largest_sum_allowed_is_exact():
    layer = linear_layer([[2**53 - 2, 1]], low=0, high=1)
    assert layer(np.array([[1, 1]])).tolist() == [[2**53 - 1]]


@pytest.mark.parametrize("X", [np.zeros((3, 1)), np.zeros(2), np.array([[0.0, np.nan]])])
def test_features_of_another_shape_or_without_a_value_are_refused(X):
    with pytest.raises(ValueError, match=r"of shape \(n_rows, 2\), without NaN"):
        small_program().quantize(X)


def test_codes_take_hardly_more_memory_than_they_have(monkeypatch):
    monkeypatch.setattr("cipherlearn.program._encoder._BLOCK_CODES", 1 << 18)
    quantizer = InputQuantizer(1, [0] * 500, [[0.0]] * 500)
    with peak_below(18e6):
        assert quantizer(np.ones((4000, 1))).nbytes == 16e6


def test_many_rows_give_the_results_of_single_blocks():
    program = small_program()
    codes = np.random.default_rng(0).integers(0, 4, (20_000, 2))
    result = program.run(codes)
    assert result.shape == (20_000, 2)
    for start in (0, 8191, 8192, 16_384, 19_999):
        np.testing.assert_array_equal(result[start : start + 1], program.run(codes[[start]]))


def test_no_rows_give_no_results():
    assert small_program().run(np.empty((0, 2), dtype=np.int64)).shape == (0, 2)


# ---------------------------------------------------------------------- the quantizer


def test_a_code_counts_the_thresholds_that_its_feature_reaches():
    quantizer = InputQuantizer(3, [2, 2, 0], [[1.0, 2.0], [3.0, np.inf], [0.0, 0.0]])
    X = np.array([[-1.0, 9.0, 0.99], [0.0, 9.0, 1.0], [1.0, 9.0, 2.5], [-0.0, 9.0, 3.0]])
    assert quantizer(X).tolist() == [[0, 0, 0], [1, 0, 2], [2, 0, 2], [2, 1, 2]]
    assert quantizer.largest.tolist() == [2, 1, 2]
    assert quantizer.n_bits == 2


def test_codes_may_be_wider_than_a_byte():
    quantizer = InputQuantizer(1, [0], [np.arange(300.0)])
    assert quantizer([[-1.0], [255.0], [299.0]]).ravel().tolist() == [0, 256, 300]
    assert quantizer.n_bits == 9


@pytest.mark.parametrize("value", [4.0, 1e6, 1e300, np.finfo(np.float64).max, np.inf])
def test_inputs_beyond_the_range_saturate(value):
    quantizer = rounding_quantizer([0.0, -5.0], [1.0, 1e-3], 3)
    largest = 7 if value > 7 else 4
    assert quantizer(np.array([[value, value]])).tolist() == [[largest, 7]]
    assert quantizer(np.array([[-value, -value - 5]])).tolist() == [[0, 0]]


@given(npst.arrays(np.float64, (4, 2), elements=st.floats(allow_nan=False)))
def test_no_input_leaves_the_range_of_the_codes(X):
    program = small_program()
    codes = program.quantize(X)
    assert codes.dtype == np.int64
    assert codes.min() >= 0
    assert codes.max() <= 3
    accumulators = program.run(codes)
    for column, proven in zip(accumulators.T, program.layers[-1].accumulators, strict=True):
        assert proven.low <= column.min()
        assert column.max() <= proven.high


# ---------------------------------------------------------------------- immutability


def arrays_of(program):
    yield "feature", program.quantizer.feature
    yield "thresholds", program.quantizer.thresholds
    yield "largest", program.quantizer.largest
    yield "offset", program.scaler.offset
    yield "gain", program.scaler.gain
    yield "bias", program.scaler.bias
    yield from (("inputs", columns) for columns in program.inputs)
    for node in program.nodes:
        for name in ("weights", "constant", "tables", "low"):
            if hasattr(node, name):
                yield name, getattr(node, name)
    for layer in program.layers:
        for name in ("weights", "input_low", "input_high", "low", "high"):
            yield name, getattr(layer, name)
        if layer.tables is not None:
            yield "tables", layer.tables


def test_fields_cannot_be_assigned():
    program = small_program()
    for value, field in [
        (program, "nodes"),
        (program.nodes[0], "weights"),
        (program.layers[0], "weights"),
        (program.quantizer, "thresholds"),
        (program.scaler, "gain"),
        (IntegerRange(0, 1), "high"),
    ]:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field, None)


@pytest.mark.parametrize(
    "duplicate",
    [lambda program: program, copy.deepcopy, lambda program: pickle.loads(pickle.dumps(program))],
    ids=["original", "deepcopy", "pickle"],
)
def test_no_array_of_a_program_can_be_written(duplicate):
    writeable = [name for name, a in arrays_of(duplicate(small_program())) if a.flags.writeable]
    assert writeable == []


def test_later_changes_of_the_arguments_do_not_reach_the_program():
    weights = np.array([[1, 2]])
    layer = linear_layer(weights)
    weights[0, 0] = 99
    assert layer.weights.tolist() == [[1, 2]]
    assert layer.high.tolist() == [9]


def test_nodes_given_as_a_list_become_a_tuple():
    program = small_program()
    assert type(dataclasses.replace(program, nodes=list(program.nodes)).nodes) is tuple


def test_a_pickled_program_gives_the_same_results():
    program = small_program()
    codes = np.array(list(itertools.product(range(4), repeat=2)))
    twin = pickle.loads(pickle.dumps(program))
    np.testing.assert_array_equal(twin.run(codes), program.run(codes))


# ---------------------------------------------------------------------- construction errors


def hidden_layer(low=(0, 0), high=(3, 3), tables=((0, 1, 2, 3),)):
    return IntegerLayer([[1, 0]], low, high, tables=tables)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: IntegerLayer([1, 2], [0, 0], [3, 3]),
            r"weights must have 2 dimension\(s\). Got 1",
        ),
        (lambda: IntegerLayer([[1, 2]], [0], [3]), "one input range per column"),
        (lambda: IntegerLayer([[1, 2]], [0, 4], [3, 3]), "Input ranges need low <= high"),
        (lambda: hidden_layer(tables=[[0, 1, 2]]), r"expected \(1, >= 4\). Got \(1, 3\)"),
        (lambda: hidden_layer(tables=[[0, 1, -2, 3]]), r"start at 0. Got -2"),
        (lambda: hidden_layer(tables=[[0] * 4] * 2), r"expected \(1, >= 4\). Got \(2, 4\)"),
        (lambda: InputQuantizer(1, [0, 0], [[1.0]]), "a row of thresholds for each. Got 2 codes"),
        (lambda: InputQuantizer(1, np.empty(0, int), np.empty((0, 1))), "at least one code"),
        (lambda: InputQuantizer(1, [1], [[1.0]]), "read features and components from 0 to 0"),
        (lambda: InputQuantizer(1, [-1], [[1.0]]), "read features and components from 0 to 0"),
        (lambda: InputQuantizer(1, [0], [[2.0, 1.0]]), "ascend in each row"),
        (lambda: InputQuantizer(1, [0], [[np.nan]]), "numbers above -inf"),
        (lambda: InputQuantizer(1, [0], [[-np.inf]]), "numbers above -inf"),
        (lambda: OutputScaler([1.0, 2.0], [0.0] * 3), "Got 2 gains, 2 offsets and 3 biases"),
        (lambda: OutputScaler([1.0], [0.0], [0, 0]), "Got 1 gains, 2 offsets and 1 biases"),
    ],
)
def test_an_invalid_part_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([hidden_layer()], "the last has none"),
        ([linear_layer([1, 1]), linear_layer([1])], "Every layer but the last needs tables"),
        ([hidden_layer(), linear_layer([1, 1])], "a column of weights for each of the 1 integers"),
        ([linear_layer([[1, 1], [0, 1]])], "one gain for each integer"),
        ([linear_layer([1, 1], high=2)], r"assumes inputs in \[0, 2\] but may receive \[0, 3\]"),
        ([linear_layer([1, 1], low=1)], r"assumes inputs in \[1, 3\] but may receive \[0, 3\]"),
        (
            [hidden_layer(tables=[[0, 1, 9, 3]]), linear_layer([1])],
            r"assumes inputs in \[0, 3\] but may receive \[0, 9\]",
        ),
    ],
)
def test_layers_that_do_not_fit_together_are_refused(layers, message):
    quantizer = rounding_quantizer([0.0, 0.0], [1.0, 1.0], 2)
    with pytest.raises(ValueError, match=message):
        IntegerProgram.chain(quantizer, tuple(layers), OutputScaler([1.0], [0.0]))
