"""Notebooks show the state of an estimator."""

# The same with any engine.
# engine: concrete-python

from __future__ import annotations

import copy

import numpy as np
from cases import network, pickled
from sklearn import config_context
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cipherlearn._html import html_table
from cipherlearn.circuit import _cost
from cipherlearn.inspection import CircuitDisplay


def test_a_notebook_shows_the_state_beside_the_diagram(models):
    assert "<b>Not fitted</b>" in network()._repr_html_()
    clf = copy.deepcopy(models["one layer"])
    shown = clf._repr_mimebundle_()["text/html"]
    assert "sk-top-container" in shown
    assert "<b>Fitted</b>" in shown
    weights = np.count_nonzero(clf.program_.layers[0].weights)
    assert f"<td>{weights}</td><td>{clf.program_.layers[0].n_accum_bits}</td>" in shown
    clf.compile(batch_size=3)
    shown = clf._repr_html_()
    assert "<b>Compiled</b>" in shown
    assert "error probability of a bootstrap ≤ 2⁻⁴⁰" in shown
    assert "rows a call: 3" in shown


def test_a_notebook_shows_costs_once_they_are_known(models, monkeypatch):
    clf = copy.deepcopy(models["one layer"])
    monkeypatch.setattr(_cost, "_estimates", {})
    clf.compile()
    assert "Estimated" not in clf._repr_html_()
    assert _cost._estimates == {}
    cost = clf.estimate()
    assert f"{cost.seconds_per_row:.3g} s a row" in clf._repr_html_()
    clf.compile(p_error=0.001)
    assert "Estimated" not in clf._repr_html_()


def test_showing_a_loaded_estimator_compiles_nothing(models):
    clf = copy.deepcopy(models["two layers"])
    clf.compile()
    clf = pickled(clf)
    assert "<b>Compiled</b>" in clf._repr_html_()
    CircuitDisplay.from_estimator(clf)
    assert clf.circuit_._engine_circuit is None
    assert clf.circuit_._keys is None


def test_cells_are_escaped():
    assert html_table(["<b>"], [["a & b"]]).count("&lt;b&gt;</th>") == 1
    assert "<td>a &amp; b</td>" in html_table(["x"], [["a & b"]])


def test_text_display_and_diagrams_of_pipelines_are_scikit_learns(models):
    clf = models["two layers"]
    with config_context(display="text"):
        assert not hasattr(clf, "_repr_html_")
        assert set(clf._repr_mimebundle_()) == {"text/plain"}
    shown = make_pipeline(StandardScaler(), clf)._repr_html_()
    assert "NeuralNetClassifier" in shown
    assert "cipherlearn-state" not in shown
