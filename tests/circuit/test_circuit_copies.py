"""Copies of compiled networks, and circuits that go stale."""

from __future__ import annotations

import copy
import io
import pickle

import joblib
import numpy as np
import pytest
from cases import classes

from cipherlearn import Circuit, NotCompiledError


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
def test_copies_of_a_compiled_network_predict_encrypted(fitted_linear, duplicate):
    X, _ = classes()
    original = copy.deepcopy(fitted_linear)
    original.compile().keygen()
    twin = duplicate(original)
    np.testing.assert_array_equal(twin.predict_proba(X), original.predict_proba(X))
    encrypted = twin.predict_proba(X[:2], execute_in_fhe=True)
    np.testing.assert_array_equal(encrypted, original.predict_proba(X[:2]))


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
    keyless = Circuit(compiled.program_, [4, 4, 16], verbose=compiled.verbose)
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
