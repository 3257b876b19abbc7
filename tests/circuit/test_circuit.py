"""Circuits that really encrypt. Networks are tiny, so that keys take a second or two."""

from __future__ import annotations

import copy
import gc
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cases import (
    LINEAR,
    TINY,
    classes,
    linear_program,
    needs_concrete_python,
    rounding_quantizer,
)
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cipherlearn import (
    AccumulatorOverflowError,
    CipherlearnError,
    Circuit,
    IntegerProgram,
    NeuralNetClassifier,
    NeuralNetRegressor,
    NotCompiledError,
)
from cipherlearn.engines._options import DEFAULT_P_ERROR
from cipherlearn.program._decoder import OutputScaler
from cipherlearn.program._layer import IntegerLayer


def all_zero_program():
    """Two hidden neurons that are constant, and outputs that are 0."""
    hidden = IntegerLayer(np.zeros((2, 2), dtype=int), [0, 0], [3, 3], tables=[[1], [2]])
    last = IntegerLayer(np.zeros((2, 2), dtype=int), [1, 2], [1, 2])
    quantizer = rounding_quantizer([0.0, 0.0], [1.0, 1.0], 2)
    return IntegerProgram.chain(quantizer, (hidden, last), OutputScaler([1.0, 1.0], [0.25, -1.0]))


# ---------------------------------------------------------------------- compile


def test_compile_needs_no_data_and_returns_the_circuit(fitted_linear):
    clf = copy.deepcopy(fitted_linear)
    assert not hasattr(clf, "circuit_")
    circuit = clf.compile()
    assert type(circuit) is Circuit
    assert clf.circuit_ is circuit
    assert circuit.program is clf.program_


def test_another_thread_can_compile(fitted_linear):
    clf = copy.deepcopy(fitted_linear)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(clf.compile).result()
    X, _ = classes()
    np.testing.assert_array_equal(clf.predict(X[:2], execute_in_fhe=True), clf.predict(X[:2]))


def test_a_network_must_be_fitted_before_it_is_compiled():
    with pytest.raises(NotFittedError, match="not fitted yet"):
        NeuralNetClassifier().compile()


def test_a_network_must_be_fitted_before_it_predicts_encrypted():
    X, _ = classes()
    with pytest.raises(NotFittedError, match="not fitted yet") as error:
        NeuralNetClassifier().predict(X, execute_in_fhe=True)
    assert not isinstance(error.value, NotCompiledError)


@pytest.mark.parametrize("mode", [True, "simulate"])
@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_a_network_must_be_compiled_before_it_predicts_encrypted(fitted_linear, mode, method):
    X, _ = classes()
    with pytest.raises(NotCompiledError, match=r"not compiled yet. Call compile\(\)") as error:
        getattr(fitted_linear, method)(X, execute_in_fhe=mode)
    assert isinstance(error.value, NotFittedError)
    assert isinstance(error.value, CipherlearnError)
    assert fitted_linear.predict(X).shape == (60,)


def test_an_overflow_names_layer_neuron_bits_and_remedy():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 40))
    y = (X.sum(axis=1) > 0).astype(int)
    clf = NeuralNetClassifier(**{**TINY, "module__pruning": False, "max_epochs": 5}).fit(X, y)
    layer = clf.program_.layers[0]
    assert layer.n_accum_bits > 4
    with pytest.raises(AccumulatorOverflowError, match="must fit its 4 bits") as error:
        clf.compile()
    worst = next(j for j, r in enumerate(layer.accumulators) if r.n_bits > 4)
    assert error.match(
        f"Neuron {worst} of layer 0 sums to between {layer.low[worst]} and {layer.high[worst]}, "
        f"which needs {layer.accumulators[worst].n_bits} bits"
    )
    assert error.match("enable module__pruning, or raise module__n_accum_bits")
    assert isinstance(error.value, ValueError)
    assert isinstance(error.value, CipherlearnError)
    assert not hasattr(clf, "circuit_")
    assert clf.predict(X).shape == (60,)


def test_a_large_multiplier_is_caught_when_it_overflows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 40))
    parameters = {
        **LINEAR,
        "module__wide_path": False,
        "module__n_accum_bits": 4,
        "module__n_hidden_neurons_multiplier": 40.0,
    }
    clf = NeuralNetClassifier(**parameters).fit(X, X.sum(axis=1) > 0)
    with pytest.raises(AccumulatorOverflowError, match="Lower module__n_hidden_neurons_multiplier"):
        clf.compile()


@pytest.mark.parametrize(
    ("weights", "n_bits"), [([5, 0], 4), ([3, -2], 4), ([6, 0], 5), ([-3, 3], 5), ([1, 0], 2)]
)
def test_a_circuit_allows_exactly_the_bits_that_its_sums_need(weights, n_bits):
    program = linear_program(weights)
    circuit = Circuit(program, [n_bits])
    corners = np.array([[0, 0], [0, 3], [3, 0], [3, 3]])
    np.testing.assert_array_equal(circuit.simulate(corners), corners @ np.array([weights]).T)
    with pytest.raises(AccumulatorOverflowError, match=f"which needs {n_bits} bits"):
        Circuit(program, [n_bits - 1])


# ---------------------------------------------------------------------- error probabilities


def test_a_wrong_bootstrap_is_rarer_than_one_in_a_trillion_by_default(compiled):
    assert DEFAULT_P_ERROR == 2.0**-40
    assert 0 < compiled.circuit_.p_error <= 2.0**-40


@pytest.mark.parametrize("p_error", [1e-3, 1e-9])
def test_the_error_of_a_bootstrap_can_be_chosen(compiled, p_error):
    circuit = Circuit(compiled.program_, [4, 4, 16], p_error=p_error)
    assert p_error / 1e4 < circuit.p_error <= p_error


def test_the_error_of_a_row_bounds_that_of_its_bootstraps(compiled):
    n_bootstraps = compiled.program_.n_bootstraps
    assert n_bootstraps > 1
    circuit = Circuit(compiled.program_, [4, 4, 16], global_p_error=1e-3)
    assert 1e-3 / 1e4 < circuit.p_error <= 1e-3 / n_bootstraps * 1.01


@pytest.mark.parametrize("name", ["p_error", "global_p_error"])
@pytest.mark.parametrize("value", [0, 0.0, 1, 1.0, -0.1, 2.0, float("nan"), float("inf")])
def test_an_error_probability_lies_between_0_and_1(fitted_linear, name, value):
    with pytest.raises(ValueError, match=f"^{name} must be above 0 and below 1. Got"):
        fitted_linear.compile(**{name: value})


def test_only_one_error_probability_may_be_given(fitted_linear):
    with pytest.raises(ValueError, match=r"Give p_error .* or global_p_error .*, not both"):
        fitted_linear.compile(p_error=1e-5, global_p_error=1e-5)


# ---------------------------------------------------------------------- prediction


def test_encrypted_labels_are_the_clear_ones(compiled):
    X, y = classes()
    encrypted = compiled.predict(X[:6], execute_in_fhe=True)
    np.testing.assert_array_equal(encrypted, compiled.predict(X[:6]))
    assert len(set(encrypted)) > 1
    assert encrypted.dtype == y.dtype


def test_encrypted_probabilities_are_the_clear_ones(compiled):
    X, _ = classes()
    clear = compiled.predict_proba(X[:4])
    np.testing.assert_array_equal(compiled.predict_proba(X[:4], execute_in_fhe=True), clear)
    assert clear.shape == (4, 3)


@pytest.mark.parametrize("factor", [1.0, 1e3, -1e12, 1e300])
def test_inputs_beyond_the_training_range_cannot_overflow(compiled, factor):
    rows = np.array([[1.0, -1.0, 1.0, -1.0]]) * factor
    np.testing.assert_array_equal(
        compiled.predict_proba(rows, execute_in_fhe=True), compiled.predict_proba(rows)
    )


def test_simulated_predictions_are_the_clear_ones(compiled):
    X, _ = classes()
    simulated = compiled.predict(X, execute_in_fhe="simulate")
    np.testing.assert_array_equal(simulated, compiled.predict(X))
    np.testing.assert_array_equal(
        compiled.predict_proba(X, execute_in_fhe="simulate"), compiled.predict_proba(X)
    )


def test_simulation_needs_no_keys(fitted_linear, monkeypatch):
    clf = copy.deepcopy(fitted_linear)
    circuit = clf.compile()
    monkeypatch.setattr(circuit, "keygen", lambda: pytest.fail("keys were generated"))
    X, _ = classes()
    assert clf.predict(X, execute_in_fhe="simulate").shape == (60,)


@needs_concrete_python("Concrete-Numpy removes its folders")
def test_a_circuit_leaves_no_folder(fitted_linear, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    clf = copy.deepcopy(fitted_linear)
    clf.compile()
    clf.predict(classes()[0], execute_in_fhe="simulate")
    assert len(list(tmp_path.iterdir())) == 2
    del clf
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_a_simulation_with_frequent_errors_differs_from_the_clear_result(compiled):
    program = compiled.program_
    largest = program.quantizer.largest
    codes = np.random.default_rng(0).integers(0, largest + 1, (300, len(largest)))
    circuit = Circuit(program, [4, 4, 16], p_error=0.5, batch_size=100)
    assert (circuit.simulate(codes) != program.run(codes)).any()


@pytest.mark.parametrize("n_targets", [1, 2])
def test_encrypted_targets_are_the_clear_ones(n_targets):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    y = 1000 + 50 * X[:, :n_targets]
    reg = NeuralNetRegressor(**TINY).fit(X, y[:, 0] if n_targets == 1 else y)
    reg.compile()
    clear = reg.predict(X[:4])
    np.testing.assert_array_equal(reg.predict(X[:4], execute_in_fhe=True), clear)
    assert len(np.unique(clear)) > 1
    assert clear.shape == ((4,) if n_targets == 1 else (4, 2))


def test_a_pipeline_passes_the_mode_on():
    X, y = classes()
    raw = X * 100 + 5000
    pipeline = make_pipeline(StandardScaler(), NeuralNetClassifier(**LINEAR)).fit(raw, y)
    pipeline[-1].compile()
    encrypted = pipeline.predict(raw[:4], execute_in_fhe=True)
    np.testing.assert_array_equal(encrypted, pipeline.predict(raw[:4]))
    assert len(set(encrypted)) > 1


def test_a_linear_model_has_no_bootstraps(fitted_linear):
    clf = copy.deepcopy(fitted_linear)
    clf.compile()
    X, _ = classes()
    assert clf.program_.n_bootstraps == 0
    np.testing.assert_array_equal(clf.predict(X, execute_in_fhe=True), clf.predict(X))


def test_a_network_of_zeros_compiles_and_decrypts():
    program = all_zero_program()
    circuit = Circuit(program, [4, 4])
    result = circuit.execute(np.array([[0, 3], [2, 1]]))
    assert result.tolist() == [[0, 0], [0, 0]]
    assert program.dequantize(result).tolist() == [[0.25, -1.0], [0.25, -1.0]]


def test_tables_longer_than_any_sum_needs_compile():
    """As where a wide neuron was removed, or in a file that another program wrote."""
    hidden = IntegerLayer([[1, 0]], [0, 0], [3, 3], tables=[[0, 1, 2, 3, *[0] * 28]])
    last = IntegerLayer([[1]], [0], [3])
    quantizer = rounding_quantizer([0.0, 0.0], [1.0, 1.0], 2)
    program = IntegerProgram.chain(quantizer, (hidden, last), OutputScaler([1.0], [0.0]))
    assert Circuit(program, [4, 4]).simulate(np.array([[2, 1], [3, 0]])).tolist() == [[2], [3]]


def test_constant_data_predict_encrypted():
    clf = NeuralNetClassifier(**TINY).fit(np.full((20, 3), 7.0), np.arange(20) % 2)
    clf.compile()
    rows = np.array([[7.0, 7.0, 7.0], [1e9, -1e9, 7.0]])
    np.testing.assert_array_equal(
        clf.predict_proba(rows, execute_in_fhe=True), clf.predict_proba(rows)
    )


# ---------------------------------------------------------------------- verbosity


def test_encrypted_prediction_is_quiet_by_default(fitted_linear, capfd):
    X, _ = classes()
    clf = copy.deepcopy(fitted_linear)
    clf.compile()
    clf.predict(X[:2], execute_in_fhe=True)
    clf.predict(X[:2], execute_in_fhe="simulate")
    assert capfd.readouterr() == ("", "")


def test_verbose_shows_stages_and_a_bar_over_rows(fitted_linear, capsys):
    X, _ = classes()
    clf = copy.deepcopy(fitted_linear).set_params(verbose=1)
    clf.compile()
    assert re.fullmatch(r"Compiling\.\.\.\nCompiling: \d+\.\d s\n", capsys.readouterr().err)
    clf.predict(X[:3], execute_in_fhe=True)
    shown = capsys.readouterr()
    assert "Generating keys" in shown.err
    assert "Encrypted rows: 100%" in shown.err
    assert "3/3" in shown.err
    clf.predict(X[:5], execute_in_fhe="simulate")
    assert "5/5" in capsys.readouterr().err
    clf.predict(X)
    assert capsys.readouterr() == ("", "")


def test_verbosity_of_compile_overrides_the_estimators(fitted_linear, capsys):
    clf = copy.deepcopy(fitted_linear)
    clf.compile(verbose=1)
    assert "Compiling..." in capsys.readouterr().err
    clf.set_params(verbose=1).compile(verbose=0)
    assert capsys.readouterr() == ("", "")
