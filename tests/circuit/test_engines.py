"""Two engines behind one interface, of which an environment holds one."""

from __future__ import annotations

import inspect
import re
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
from cases import ENGINE, blobs, rounding_quantizer
from hypothesis import given, settings
from hypothesis import strategies as st

from cipherlearn import (
    CipherlearnError,
    Circuit,
    CompilationError,
    EngineNotFoundError,
    IntegerProgram,
    NeuralNetClassifier,
    UnsupportedByEngineError,
    engines,
    load_program,
    save_program,
)
from cipherlearn.engines._options import CompileOptions
from cipherlearn.program._decoder import OutputScaler
from cipherlearn.program._layer import IntegerLayer

on_concrete_numpy = pytest.mark.skipif(ENGINE != "concrete-numpy", reason="of the other engine")


def install(monkeypatch, *names):
    """Let only these packages seem to be there."""

    def distribution(name):
        if name not in names:
            raise PackageNotFoundError(name)

    monkeypatch.setattr(engines, "distribution", distribution)


def peak_program(signs=(1, -1)):
    """Neurons that answer 1 of 4 inputs, and sums that only they can drive to an end.

    No smallest or largest input does, so that ranges measured on those are too narrow.
    """
    hidden = IntegerLayer(np.ones((5, 1), dtype=int), [0], [3], tables=[[0, 3, 0, 0]] * 5)
    high = np.full(5, 3)
    last = IntegerLayer(np.repeat([signs], 5, axis=0).T, 0 * high, high)
    scaler = OutputScaler(np.ones(len(signs)), np.zeros(len(signs)))
    return IntegerProgram.chain(rounding_quantizer([0.0], [1.0], 2), (hidden, last), scaler)


def widths(circuit):
    """Bits of every tensor that was compiled."""
    compiled = circuit._compiled()
    if ENGINE == "concrete-numpy":
        text = "".join(part.circuit.mlir for part in compiled._parts)
    else:
        text = compiled._circuit.mlir
    return {int(width) for width in re.findall(r"!FHE\.eint<(\d+)>", text)}


# ---------------------------------------------------------------------- finding the engine


def test_the_engine_is_named_by_circuit_estimator_and_report():
    X, y = blobs()
    clf = NeuralNetClassifier(module__n_layers=1, max_epochs=2).fit(X, y)
    assert not hasattr(clf, "engine_")
    circuit = clf.compile()
    assert clf.engine_ == circuit.engine == ENGINE
    report = clf.report()
    assert report.cost.engine == ENGINE
    assert f"Timed with {ENGINE}, " in str(report)


def test_without_an_engine_the_error_says_what_to_install(monkeypatch):
    install(monkeypatch)
    with pytest.raises(EngineNotFoundError, match="python -m pip install") as error:
        Circuit(peak_program(), [4, 5])
    assert isinstance(error.value, ImportError)
    assert isinstance(error.value, CipherlearnError)


@pytest.mark.parametrize("name", ["concrete-python", "concrete-numpy"])
def test_the_engine_that_is_installed_is_found(monkeypatch, name):
    install(monkeypatch, name, "numpy")
    assert engines.engine_name() == name


def test_the_successor_is_preferred(monkeypatch):
    install(monkeypatch, "concrete-numpy", "concrete-python")
    assert engines.engine_name() == "concrete-python"


def test_an_engine_offers_the_whole_interface():
    program = peak_program()
    circuit = engines.load_engine().compile_program(program, CompileOptions(p_error=2.0**-17))
    assert circuit.engine == ENGINE
    for name, member in vars(engines.EngineCircuit).items():
        if not name.startswith("_"):
            assert hasattr(type(circuit), name)
            assert isinstance(getattr(type(circuit), name), property) == isinstance(
                member, property
            )
    assert set(inspect.signature(engines.load_engine().compile_program).parameters) == {
        "program",
        "options",
    }


# ---------------------------------------------------------------------- proven widths


def test_a_deep_sum_has_its_proven_width_whatever_the_compiler_could_measure():
    program = peak_program()
    circuit = Circuit(program, [2, 4])
    codes = np.arange(4)[:, None]
    expected = program.run(codes)
    assert expected.tolist() == [[0, 0], [15, -15], [0, 0], [0, 0]]
    np.testing.assert_array_equal(circuit.simulate(codes), expected)
    np.testing.assert_array_equal(circuit.execute(codes), expected)


@settings(max_examples=15)
@given(st.data())
def test_every_tensor_is_compiled_with_the_bits_it_is_proven_to_need(data):
    weights = st.integers(-3, 3)
    first = data.draw(st.lists(st.lists(weights, min_size=2, max_size=2), min_size=1, max_size=3))
    second = data.draw(st.lists(weights, min_size=len(first), max_size=len(first)))
    plain = IntegerLayer(first, [0, 0], [3, 3])
    size = int((plain.high - plain.low).max()) + 1
    entry = st.integers(0, 3)
    tables = [data.draw(st.lists(entry, min_size=size, max_size=size)) for _ in first]
    hidden = IntegerLayer(first, [0, 0], [3, 3], tables)
    high = [r.high for r in hidden.table_ranges]
    last = IntegerLayer([second], [r.low for r in hidden.table_ranges], high)
    program = IntegerProgram.chain(
        rounding_quantizer([0.0, 0.0], [1.0, 1.0], 2), (hidden, last), OutputScaler([1.0], [0.0])
    )
    circuit = Circuit(program, [8, 8])
    needed = {layer.n_accum_bits for layer in program.layers}
    if ENGINE == "concrete-numpy":
        # One width for all. Only a constant can ask for more.
        assert len(widths(circuit)) == 1
    assert max(widths(circuit)) >= max(needed)
    codes = program.quantizer.random_codes(20, np.random.default_rng(0))
    np.testing.assert_array_equal(circuit.simulate(codes), program.run(codes))


@on_concrete_numpy
@pytest.mark.parametrize("compiled", ["!FHE.eint<4>", "!FHE.eint<4>, !FHE.eint<5>", ""])
def test_a_compiler_that_takes_another_width_is_not_trusted(compiled):
    from cipherlearn.engines import concrete_numpy

    with pytest.raises(CompilationError, match=r"must have 5 bits\. Got \["):
        concrete_numpy._check_widths(compiled, 5)


@on_concrete_numpy
def test_widths_that_are_measured_and_not_declared_are_refused(monkeypatch):
    from cipherlearn.engines import concrete_numpy

    assert widths(Circuit(peak_program(signs=[1]), [2, 4])) == {4}
    monkeypatch.setattr(concrete_numpy, "_declare_widths", lambda *_: None)
    with pytest.raises(CompilationError, match=r"must have 4 bits\. Got \[[1-3]\]"):
        Circuit(peak_program(signs=[1]), [2, 4])


# ---------------------------------------------------------------------- one program, two engines


def test_a_program_from_a_file_is_compiled_again(tmp_path):
    program = peak_program()
    save_program(program, tmp_path / "program.zip")
    loaded = load_program(tmp_path / "program.zip")
    codes = np.arange(4)[:, None]
    circuit = Circuit(loaded, [2, 4], p_error=2.0**-17)
    np.testing.assert_array_equal(circuit.execute(codes), program.run(codes))


@on_concrete_numpy
@pytest.mark.parametrize(
    "ask",
    [
        lambda: Circuit(peak_program(), [2, 4], rounding="approximate"),
        lambda: Circuit(peak_program(), [2, 4]).files(),
    ],
    ids=["approximate", "files"],
)
def test_what_only_the_successor_has_is_refused_by_name(ask):
    with pytest.raises(UnsupportedByEngineError, match=r"engine concrete-numpy .* concrete-python"):
        ask()
    assert issubclass(UnsupportedByEngineError, NotImplementedError)
    assert issubclass(UnsupportedByEngineError, CipherlearnError)
