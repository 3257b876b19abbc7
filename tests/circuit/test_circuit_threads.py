"""Circuits in threads, and in processes without standard input or a reader."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
from cases import classes, needs_concrete_python

from cipherlearn.circuit import _circuit
from cipherlearn.circuit._circuit_keys import CircuitKeys


@pytest.mark.parametrize("mode", [True, "simulate"])
def test_a_broken_pipe_is_an_error_after_a_prediction(compiled, mode):
    # Otherwise this process ends here.
    X, _ = classes()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(compiled.predict, X[:1], execute_in_fhe=mode).result()
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


def assert_threads_predict_together(model):
    rows = classes()[0][:2]

    def predict(row):
        return model.predict_proba([row], execute_in_fhe=True)

    with ThreadPoolExecutor(2) as threads:
        encrypted = np.concatenate([*threads.map(predict, rows)])
    np.testing.assert_array_equal(encrypted, model.predict_proba(rows))


def test_threads_that_predict_together_share_a_circuit(compiled):
    assert_threads_predict_together(compiled)


@pytest.mark.parametrize("is_compiled", [True, False])
def test_threads_that_predict_first_together_share_keys(fitted_linear, is_compiled, monkeypatch):
    made = []

    def make(kind):
        """Take long, so that the other thread would make them too."""
        made.append(kind)
        time.sleep(0.2)

    load_engine = _circuit.load_engine
    monkeypatch.setattr(_circuit, "load_engine", lambda: make("circuit") or load_engine())
    monkeypatch.setattr(_circuit, "CircuitKeys", lambda *given: make("keys") or CircuitKeys(*given))
    clf = copy.deepcopy(fitted_linear)
    clf.compile()
    if not is_compiled:
        clf = pickle.loads(pickle.dumps(clf))
    made.clear()
    assert_threads_predict_together(clf)
    assert made == (["keys"] if is_compiled else ["circuit", "keys"])


def test_keys_of_one_circuit_do_not_wait_for_those_of_another(fitted_linear):
    slow, other = copy.deepcopy(fitted_linear).compile(), copy.deepcopy(fitted_linear).compile()
    inside, leave = threading.Event(), threading.Event()

    def generate_keys():
        inside.set()
        assert leave.wait(60)

    slow._engine_circuit.client.generate_keys = generate_keys
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
    encrypt = circuit._encrypt

    def encrypt_and_replace(codes):
        ciphertext = encrypt(codes)
        circuit.keygen(force=True)
        return ciphertext

    circuit._encrypt = encrypt_and_replace
    with (
        joblib.parallel_config(backend="threading"),
        pytest.raises(RuntimeError, match="replaced by keygen"),
    ):
        clf.circuit_.execute(clf.program_.quantize(classes()[0][:3]), n_jobs=n_jobs)
