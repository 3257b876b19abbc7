"""Steps of client and server, batches, and input that is refused."""

from __future__ import annotations

import numpy as np
import pytest
from cases import classes, linear_program

from cipherlearn import Circuit, IntegerProgram, NotCompiledError
from cipherlearn.program._decoder import OutputScaler
from cipherlearn.program._encoder import InputQuantizer
from cipherlearn.program._layer import IntegerLayer

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
    circuit = Circuit(IntegerProgram.chain(quantizer, (layer,), OutputScaler([1.0], [0.0])), [4])
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
