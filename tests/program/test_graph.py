"""Programs are graphs: nodes may read any values before them, and compute what Python does."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from graphs import GRAPHS, every_code, random_graph
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn import IntegerProgram, load_program, save_program
from cipherlearn.program._decoder import OutputScaler
from cipherlearn.program._encoder import InputQuantizer
from cipherlearn.program._nodes import Lookup, Sum
from cipherlearn.program._passes import components, connected, simplify, unrounded, unsigned

SEEDS = st.integers(0, 2**32 - 1)


def by_hand(program: IntegerProgram, row: list[int]) -> list[list[int]]:
    """Every value of one row, in Python's integers."""
    values = [[row[c] for c in columns] for columns in program.inputs]
    for node in program.nodes:
        if isinstance(node, Lookup):
            places = zip(values[node.reads], node.low.tolist(), strict=True)
            indices = [value - low for value, low in places]
            assert min(indices) >= 0
            values.append([int(t[i]) for t, i in zip(node.tables, indices, strict=True)])
            continue
        read = [x for v in node.reads for x in values[v]]
        sums = (sum(int(w) * x for w, x in zip(ws, read, strict=True)) for ws in node.weights)
        values.append([s + int(c) for s, c in zip(sums, node.constant, strict=True)])
    return values


@given(SEEDS)
def test_values_are_those_of_python_and_in_their_proven_ranges(seed):
    program = random_graph(seed)
    codes = every_code(program, 20, seed)
    result = program.run(codes)
    for row, got in zip(codes.tolist(), result.tolist(), strict=True):
        values = by_hand(program, row)
        assert got == [s for v in program.outputs for s in values[v]]
        for value, (low, high) in zip(values, program.ranges, strict=True):
            assert (low <= value).all()
            assert (value <= high).all()


@given(SEEDS)
def test_passes_keep_the_function(seed):
    program = random_graph(seed)
    codes = every_code(program, 50, seed)
    expected = program.scaler(program.run(codes))
    moved = unsigned(program)
    np.testing.assert_array_equal(moved.scaler(moved.run(codes)), expected)
    for value, layer in zip(moved.outputs, moved.output_layers, strict=True):
        assert (moved.ranges[value][0] == 0).all() or layer.lsbs_to_remove
    for layer in moved.hidden_layers:
        assert (layer.cell(layer.low) == 0).all()
        assert layer.cell_tables.shape == (len(layer.weights), 2**layer.n_table_bits)
    whole = unrounded(program)
    np.testing.assert_array_equal(whole.run(codes), program.run(codes))
    assert not any(node.lsbs_to_remove for node in whole.lookups)


@given(SEEDS)
def test_simplification_keeps_the_function_and_what_it_removes_is_not_needed(seed):
    program = random_graph(seed, always=True)
    smaller = simplify(program)
    assert smaller.n_bootstraps <= program.n_bootstraps
    rows = np.random.default_rng(seed).uniform(-1, 4, (50, program.n_features))
    np.testing.assert_array_equal(smaller(rows), program(rows))


@given(SEEDS)
def test_parts_with_no_value_in_common_give_the_outputs_of_the_whole(seed):
    program = random_graph(seed)
    codes = every_code(program, 20, seed)
    sums: dict[int, np.ndarray] = {}
    for part, inputs, outputs in components(program):
        assert len(part.inputs) == len(inputs)
        ends = np.cumsum([len(layer.weights) for layer in part.output_layers])[:-1]
        sums.update(zip(outputs, np.split(part.run(codes), ends, axis=1), strict=True))
    joined = np.concatenate([sums[i] for i in range(len(program.outputs))], axis=1)
    np.testing.assert_array_equal(joined, program.run(codes))


def test_many_links_are_followed_in_no_time():
    start = time.process_time()
    links = [(i + 1, i) for i in reversed(range(19_998))]
    assert connected(20_000, links * 2) == [0] * 19_999 + [19_999]
    assert time.process_time() - start < 5


def test_a_wide_path_of_inputs_of_its_own_is_a_part_of_its_own():
    parts = components(GRAPHS["a wide path beside"]())
    assert [(inputs, outputs) for _, inputs, outputs in parts] == [((0,), (0,)), ((1,), (1,))]


@given(SEEDS)
def test_a_graph_travels_by_file(seed):
    program = random_graph(seed)
    file = io.BytesIO()
    save_program(program, file)
    loaded = load_program(io.BytesIO(file.getvalue()))
    codes = every_code(program, 20, seed)
    np.testing.assert_array_equal(loaded.run(codes), program.run(codes))
    assert [type(node) for node in loaded.nodes] == [type(node) for node in program.nodes]
    assert loaded.outputs == program.outputs


def test_outputs_are_scaled_and_added_in_the_clear():
    program = GRAPHS["a wide path beside"]()
    codes = every_code(program, 30, 0)
    narrow, wide = np.split(program.run(codes), 2, axis=1)
    gain = program.scaler.gain
    expected = narrow * gain[:2] + wide * gain[2:] + program.scaler.bias
    np.testing.assert_allclose(program.dequantize(program.run(codes)), expected, rtol=1e-6)


def test_a_trace_shows_each_sum_with_what_it_reads():
    program = GRAPHS["a skip connection"]()
    codes = every_code(program, 10, 0)
    traced = list(program.trace(codes.T))
    assert [layer for layer, _, _ in traced] == list(program.layers)
    for layer, inputs, sums in traced:
        np.testing.assert_array_equal(layer.weights @ inputs + layer.constant[:, None], sums)
    np.testing.assert_array_equal(traced[-1][2].T, program.run(codes))


def build(nodes, outputs=(2,), n_gains=1):
    quantizer = InputQuantizer(2, [0, 1], [[1.0, 2.0, 3.0]] * 2)
    scaler = OutputScaler(np.ones(n_gains), [0.0])
    return IntegerProgram(quantizer, ([0, 1],), nodes, outputs, scaler)


FIRST = Sum((0,), [[1, 1]])


def build_with(tables, low):
    return build([FIRST, Lookup(1, tables, low), Sum((2,), [[1]])], (3,))


def test_values_are_read_before_anything_is_proven(monkeypatch):
    monkeypatch.setattr("cipherlearn.program._program.prove", None)
    with pytest.raises(ValueError, match=r"must be read or be an output.* \[2\]"):
        build([FIRST, Lookup(1, [[0] * 7], [0]), FIRST], (3,))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build([Sum((1,), [[1]])]), "must read values before them. Value 1 reads 1"),
        (lambda: build([Lookup(0, [[0] * 4], [0])]), "must read a sum before it"),
        (lambda: build_with([[0] * 6], [0]), "expected one for each of 1 neurons"),
        (lambda: build_with([[0] * 7], [1]), "sums of \\[0\\] to \\[6\\]"),
        (lambda: build_with([[0] * 7] * 2, [0, 0]), "each of 1 neurons"),
        (
            lambda: build([FIRST, *[Lookup(1, [[0] * 7], [0])] * 2]),
            "that no other lookup reads. Value 3 reads 1",
        ),
        (lambda: build([FIRST, Sum((0,), [[1, 1]])]), "must be read or be an output.* \\[1\\]"),
        (lambda: build([Sum((0,), [[1]])], (1,)), "a column of weights for each of the 2 integers"),
        (lambda: build([FIRST], (0,)), "must be sums"),
        (lambda: build([FIRST], (1,), 2), "one gain for each integer"),
        (lambda: Sum((), [[1]]), "at least one value"),
        (lambda: Sum((0,), np.empty((0, 1), dtype=int)), "at least one neuron"),
        (lambda: Sum((0,), [[1]], [0, 0]), "1 neurons and 2 constants"),
        (lambda: Lookup(1, np.empty((1, 0), dtype=int), [0]), "a table with entries"),
        (lambda: Lookup(1.5, [[0]], [0]), "by their number, from 0. Got 1.5"),
    ],
)
def test_a_graph_that_does_not_fit_together_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
