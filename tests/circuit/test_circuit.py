"""Circuits that really encrypt. Networks are tiny, so that keys take a second or two."""

from __future__ import annotations

import copy
import io
import os
import pickle
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import joblib
import numpy as np
import pytest
from cases import TINY, blobs, needs_concrete_python, rounding_quantizer
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
from cipherlearn.program._encoder import InputQuantizer
from cipherlearn.program._layer import IntegerLayer

LINEAR = {**TINY, "module__n_layers": 1, "module__n_accum_bits": 8}


def classes(n_classes=3):
    X, y = blobs(n_classes)
    return X, np.array(["ant", "bee", "cow"])[y]


def linear_program(weights, n_bits=2):
    weights = np.atleast_2d(weights)
    n_outputs, n_inputs = weights.shape
    largest = np.full(n_inputs, 2**n_bits - 1)
    return IntegerProgram(
        rounding_quantizer(np.zeros(n_inputs), np.ones(n_inputs), n_bits),
        (IntegerLayer(weights, 0 * largest, largest),),
        OutputScaler(np.ones(n_outputs), np.zeros(n_outputs)),
    )


def all_zero_program():
    """Two hidden neurons that are constant, and outputs that are 0."""
    hidden = IntegerLayer(np.zeros((2, 2), dtype=int), [0, 0], [3, 3], tables=[[1], [2]])
    last = IntegerLayer(np.zeros((2, 2), dtype=int), [1, 2], [1, 2])
    quantizer = rounding_quantizer([0.0, 0.0], [1.0, 1.0], 2)
    return IntegerProgram(quantizer, (hidden, last), OutputScaler([1.0, 1.0], [0.25, -1.0]))


@pytest.fixture(scope="module")
def sum_of_four():
    """The circuit of a sum of four 2-bit codes."""
    return Circuit(linear_program([1, 1, 1, 1]), [8])


@pytest.fixture(scope="module")
def compiled():
    """A classifier with keys. Tests that share it must not change it."""
    X, y = classes()
    clf = NeuralNetClassifier(**TINY).fit(X, y)
    clf.compile().keygen()
    return clf


@pytest.fixture(scope="module")
def fitted_linear():
    X, y = classes()
    return NeuralNetClassifier(**LINEAR).fit(X, y)


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
    parameters = {**LINEAR, "module__n_accum_bits": 4, "module__n_hidden_neurons_multiplier": 40.0}
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
    circuit = Circuit(compiled.program_, [4, 4], p_error=p_error)
    assert p_error / 1e4 < circuit.p_error <= p_error


def test_the_error_of_a_row_bounds_that_of_its_bootstraps(compiled):
    assert compiled.program_.n_bootstraps == 2
    circuit = Circuit(compiled.program_, [4, 4], global_p_error=1e-3)
    assert 1e-3 / 1e4 < circuit.p_error <= 1e-3 / 2 * 1.01


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


def test_a_simulation_with_frequent_errors_differs_from_the_clear_result(compiled):
    program = compiled.program_
    largest = program.quantizer.largest
    codes = np.random.default_rng(0).integers(0, largest + 1, (300, len(largest)))
    wrong = Circuit(program, [4, 4], p_error=0.5).simulate(codes) != program.run(codes)
    assert wrong.any()


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
    pipeline = make_pipeline(StandardScaler(), NeuralNetClassifier(**TINY)).fit(raw, y)
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
    program = IntegerProgram(quantizer, (hidden, last), OutputScaler([1.0], [0.0]))
    assert Circuit(program, [4, 4]).simulate(np.array([[2, 1], [3, 0]])).tolist() == [[2], [3]]


def test_constant_data_predict_encrypted():
    clf = NeuralNetClassifier(**TINY).fit(np.full((20, 3), 7.0), np.arange(20) % 2)
    clf.compile()
    rows = np.array([[7.0, 7.0, 7.0], [1e9, -1e9, 7.0]])
    np.testing.assert_array_equal(
        clf.predict_proba(rows, execute_in_fhe=True), clf.predict_proba(rows)
    )


# ---------------------------------------------------------------------- client and server


def test_client_and_server_steps_give_the_clear_accumulators(compiled):
    X, _ = classes()
    circuit, program = compiled.circuit_, compiled.program_
    codes = program.quantize(X[:1])
    result = circuit.decrypt(circuit.run(circuit.encrypt(codes)))
    assert result.dtype == np.int64
    np.testing.assert_array_equal(result, program.run(codes))


def test_evaluation_keys_are_bytes(compiled):
    keys = compiled.circuit_.evaluation_keys()
    assert type(keys) is bytes
    assert len(keys) > 100_000


def test_keys_are_generated_once_unless_forced():
    circuit = Circuit(linear_program([1, 1]), [4])
    circuit.keygen()
    old = circuit.evaluation_keys()
    circuit.keygen()
    assert circuit.evaluation_keys() == old
    circuit.keygen(force=True)
    assert circuit.execute(np.array([[1, 2]])).tolist() == [[3]]


def test_new_keys_do_not_read_old_ciphertexts():
    circuit = Circuit(linear_program([1, 1], n_bits=4), [8])
    codes = np.array([[7, 5]])
    results = []
    for _ in range(6):
        ciphertext = circuit.run(circuit.encrypt(codes))
        circuit.keygen(force=True)
        results.append(circuit.decrypt(ciphertext).tolist())
    assert any(result != [[12]] for result in results)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((1, 5), dtype=int), r"shape \(n_rows, 4\). Got int64 of shape \(1, 5\)"),
        (np.zeros((1, 3), dtype=int), r"shape \(n_rows, 4\). Got int64 of shape \(1, 3\)"),
        (np.zeros(4, dtype=int), r"shape \(n_rows, 4\). Got int64 of shape \(4,\)"),
        (np.full((1, 4), 4), r"between 0 and 3, .* Got 4 to 4"),
        (np.array([[0, -1, 0, 3]]), r"between 0 and 3, .* Got -1 to 3\. Make them with program"),
        (np.full((1, 4), 0.5), "integer"),
    ],
)
@pytest.mark.parametrize("method", ["encrypt", "execute", "simulate"])
def test_invalid_codes_are_refused(sum_of_four, codes, message, method):
    with pytest.raises(ValueError, match=message):
        getattr(sum_of_four, method)(codes)


def test_a_code_beyond_its_own_thresholds_is_refused():
    quantizer = InputQuantizer(1, [0, 0], [[1.0, 2.0], [3.0, np.inf]])
    layer = IntegerLayer([[1, 1]], [0, 0], [2, 1])
    circuit = Circuit(IntegerProgram(quantizer, (layer,), OutputScaler([1.0], [0.0])), [4])
    assert circuit.execute(np.array([[2, 1]])).tolist() == [[3]]
    with pytest.raises(ValueError, match=r"or less for codes of fewer thresholds\. Got 0 to 2"):
        circuit.execute(np.array([[0, 2]]))


@pytest.mark.parametrize("n_rows", [0, 2])
def test_a_ciphertext_holds_no_more_rows_than_compiled_for(sum_of_four, n_rows):
    with pytest.raises(ValueError, match=rf"holds 1 to 1 rows\. Got {n_rows}"):
        sum_of_four.encrypt(np.zeros((n_rows, 4), dtype=np.int64))


@pytest.mark.parametrize("n_rows", [1, 3, 7])
def test_batches_are_split_and_padded(n_rows):
    program = linear_program([[1, -1, 2, 0]])
    circuit = Circuit(program, [8], batch_size=3)
    codes = np.arange(4 * n_rows).reshape(n_rows, 4) % 4
    for result in (circuit.execute(codes), circuit.simulate(codes)):
        np.testing.assert_array_equal(result, program.run(codes))
    assert circuit.decrypt(circuit.run(circuit.encrypt(codes[:1]))).shape == (3, 1)


@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_of_a_batch_are_told_apart_whatever_their_layout_in_memory(order):
    program = linear_program([[1, -1, 2, 0], [0, 1, 0, 1]])
    circuit = Circuit(program, [8], batch_size=3)
    codes = np.array([[0, 1, 2, 3], [3, 0, 1, 0], [1, 1, 3, 2]], order=order)
    for result in (circuit.execute(codes), circuit.simulate(codes)):
        np.testing.assert_array_equal(result, program.run(codes))
    assert program.quantize(codes).flags.c_contiguous


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True])
def test_a_batch_has_a_whole_number_of_rows(batch_size):
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1"):
        Circuit(linear_program([[1]]), [8], batch_size=batch_size)


def test_no_rows_give_no_results(sum_of_four):
    assert sum_of_four.execute(np.empty((0, 4), dtype=np.int64)).shape == (0, 1)


# ---------------------------------------------------------------------- invalid input


@pytest.mark.parametrize("mode", [False, True, "simulate"])
@pytest.mark.parametrize(
    ("corrupt", "error", "message"),
    [
        (lambda X: X[:, :3], ValueError, "X has 3 features, but .* is expecting 4 features"),
        (lambda X: np.where(X > 0, np.nan, X), ValueError, "contains NaN"),
        (lambda X: np.where(X > 0, np.inf, X), ValueError, "contains infinity"),
        (lambda X: X[0], ValueError, "Expected 2D array, got 1D array"),
        (lambda X: X[:0], ValueError, "0 sample"),
    ],
    ids=["features", "nan", "infinity", "vector", "empty"],
)
def test_invalid_rows_are_refused_in_every_mode(compiled, corrupt, error, message, mode):
    X, _ = classes()
    with pytest.raises(error, match=message):
        compiled.predict(corrupt(X), execute_in_fhe=mode)


@pytest.mark.parametrize("mode", ["yes", None, 2, "True", "Simulate"])
@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_an_unknown_mode_is_refused(compiled, mode, method):
    X, _ = classes()
    with pytest.raises(ValueError, match=r'execute_in_fhe must be False, True or "simulate". Got'):
        getattr(compiled, method)(X, execute_in_fhe=mode)


@pytest.mark.parametrize("mode", [np.bool_(False), 0])
def test_a_false_mode_predicts_in_the_clear_or_is_refused(fitted_linear, mode):
    X, _ = classes()
    try:
        predictions = fitted_linear.predict(X, execute_in_fhe=mode)
    except NotCompiledError:
        pytest.fail("a false mode asked for a circuit")
    except ValueError as error:
        assert "execute_in_fhe must be" in str(error)  # noqa: PT017
    else:
        np.testing.assert_array_equal(predictions, fitted_linear.predict(X))


# ---------------------------------------------------------------------- copies


def through_joblib(clf):
    buffer = io.BytesIO()
    joblib.dump(clf, buffer)
    buffer.seek(0)
    return joblib.load(buffer)


@pytest.mark.parametrize(
    "duplicate",
    [lambda clf: pickle.loads(pickle.dumps(clf)), through_joblib, copy.copy, copy.deepcopy],
    ids=["pickle", "joblib", "copy", "deepcopy"],
)
def test_copies_of_a_compiled_network_predict_encrypted(compiled, duplicate):
    X, _ = classes()
    twin = duplicate(compiled)
    np.testing.assert_array_equal(twin.predict_proba(X), compiled.predict_proba(X))
    encrypted = twin.predict_proba(X[:2], execute_in_fhe=True)
    np.testing.assert_array_equal(encrypted, compiled.predict_proba(X[:2]))


@pytest.mark.parametrize(
    "duplicate",
    [lambda clf: pickle.loads(pickle.dumps(clf)), through_joblib, copy.copy, copy.deepcopy],
    ids=["pickle", "joblib", "copy", "deepcopy"],
)
def test_copies_made_before_compile_compile_on_their_own(fitted_linear, duplicate):
    X, _ = classes()
    twin = duplicate(fitted_linear)
    twin.compile()
    assert not hasattr(fitted_linear, "circuit_")
    np.testing.assert_array_equal(
        twin.predict(X[:2], execute_in_fhe=True), fitted_linear.predict(X[:2])
    )


def test_a_pickle_holds_no_keys(compiled):
    circuit = compiled.circuit_
    assert len(pickle.dumps(circuit)) < 20_000 < len(circuit.evaluation_keys())
    # A circuit that has made no keys pickles to the very same length.
    keyless = Circuit(compiled.program_, [4, 4], verbose=compiled.verbose)
    assert len(pickle.dumps(keyless)) == len(pickle.dumps(circuit))


def test_a_copied_circuit_has_keys_of_its_own(compiled):
    X, _ = classes()
    twin = pickle.loads(pickle.dumps(compiled.circuit_))
    assert twin.p_error == compiled.circuit_.p_error
    assert twin.evaluation_keys() != compiled.circuit_.evaluation_keys()
    codes = compiled.program_.quantize(X[:2])
    np.testing.assert_array_equal(twin.execute(codes), compiled.program_.run(codes))
    np.testing.assert_array_equal(compiled.circuit_.execute(codes), compiled.program_.run(codes))


@pytest.mark.parametrize("refit", ["fit", "partial_fit"])
def test_training_again_drops_the_stale_circuit(fitted_linear, refit):
    X, y = classes()
    clf = copy.deepcopy(fitted_linear).set_params(max_epochs=1)
    clf.compile()
    getattr(clf, refit)(X, y)
    assert not hasattr(clf, "circuit_")
    with pytest.raises(NotCompiledError):
        clf.predict(X, execute_in_fhe=True)


def test_a_refused_compilation_keeps_the_circuit(fitted_linear):
    clf = copy.deepcopy(fitted_linear)
    circuit = clf.compile()
    with pytest.raises(ValueError, match="p_error must be"):
        clf.compile(p_error=2.0)
    assert clf.circuit_ is circuit


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


def test_a_broken_pipe_is_an_error_after_an_encrypted_prediction(compiled):
    X, _ = classes()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(compiled.predict, X[:1], execute_in_fhe=True).result()
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"x")
    os.close(writer)


def test_a_process_without_standard_input_compiles():
    code = """
import os
os.close(0)
from cipherlearn import NeuralNetClassifier
clf = NeuralNetClassifier(module__n_layers=1, max_epochs=2).fit([[0.0], [1.0]], [0, 1])
print(clf.compile().n_bootstraps)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "0\n"), result.stderr


def _encrypted(model, row):
    return model.predict_proba([row], execute_in_fhe=True)


def test_threads_that_predict_first_together_share_keys(compiled):
    X, _ = classes()
    for _ in range(3):
        clf = pickle.loads(pickle.dumps(compiled))
        clf.compile()
        copied = pickle.loads(pickle.dumps(clf))
        for model in (clf, copied):
            with ThreadPoolExecutor(2) as threads:
                encrypted = threads.map(partial(_encrypted, model), X[:2])
            np.testing.assert_array_equal(np.concatenate([*encrypted]), clf.predict_proba(X[:2]))


def test_keys_of_one_circuit_do_not_wait_for_those_of_another(fitted_linear):
    slow, other = copy.deepcopy(fitted_linear).compile(), copy.deepcopy(fitted_linear).compile()
    inside, leave = threading.Event(), threading.Event()

    def generate_keys():
        inside.set()
        assert leave.wait(60)

    slow._engine_circuit.generate_keys = generate_keys
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(slow.keygen)
        assert inside.wait(60)
        other.keygen()
        leave.set()
        waiting.result()


def test_threads_compile_one_after_the_other(fitted_linear):
    networks = [copy.deepcopy(fitted_linear) for _ in range(6)]
    with ThreadPoolExecutor(3) as threads:
        circuits = [*threads.map(lambda clf: clf.compile(), networks)]
    assert {circuit.n_bootstraps for circuit in circuits} == {circuits[0].n_bootstraps}


@pytest.mark.parametrize(
    "n_jobs", [1, pytest.param(2, marks=needs_concrete_python("has no serialized circuits"))]
)
def test_keys_that_are_replaced_during_a_prediction_are_an_error(fitted_linear, n_jobs):
    clf = copy.deepcopy(fitted_linear)
    circuit = clf.compile()
    encrypt = circuit.encrypt

    def encrypt_and_replace(codes):
        ciphertext = encrypt(codes)
        circuit.keygen(force=True)
        return ciphertext

    circuit.encrypt = encrypt_and_replace
    with (
        joblib.parallel_config(backend="threading"),
        pytest.raises(RuntimeError, match="replaced by keygen"),
    ):
        clf.circuit_.execute(clf.program_.quantize(classes()[0][:3]), n_jobs=n_jobs)
