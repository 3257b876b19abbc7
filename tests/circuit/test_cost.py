"""Estimates and reports of cost, and the search for the fastest candidate."""

from __future__ import annotations

import statistics
import time
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from cases import ENGINE, blobs, needs_concrete_python
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cipherlearn import EncryptedSearchCV, NeuralNetClassifier, NeuralNetRegressor

matplotlib.use("Agg")

SMALL = {
    "module__n_hidden_neurons": 6,
    "module__n_hidden_accum_bits": 3,
    "module__n_output_accum_bits": 4,
    "module__n_w_bits": 2,
    "max_epochs": 8,
    "random_state": 0,
}


def small(**kwargs):
    return NeuralNetClassifier(**{**SMALL, **kwargs})


@pytest.fixture(scope="module")
def fitted():
    return small().fit(*blobs())


# ---------------------------------------------------------------------- estimates


@pytest.mark.alone
def test_an_estimate_foresees_time_and_sizes(fitted):
    cost = fitted.estimate()
    circuit = fitted.compile()
    codes = fitted.program_.quantize(blobs()[0][:1])
    np.testing.assert_array_equal(circuit.execute(codes), fitted.program_.run(codes))
    seconds = []
    for _ in range(9):
        ciphertext = circuit.encrypt(codes)
        start = time.perf_counter()
        circuit.run(ciphertext)
        seconds.append(time.perf_counter() - start)
    # The machine may be busy with something else, so only the order of magnitude is certain.
    assert cost.seconds == pytest.approx(statistics.median(seconds), rel=1.0)
    assert cost.n_bootstraps == circuit.n_bootstraps == fitted.program_.n_bootstraps
    # What the engine serializes has some structure besides.
    n_values = len(fitted.program_.inputs)
    for estimated, size in zip(
        (cost.input_bytes, cost.output_bytes), circuit.ciphertext_sizes(), strict=True
    ):
        assert estimated <= size <= estimated + 400 * n_values
    assert cost.key_bytes == pytest.approx(len(circuit.evaluation_keys()), rel=0.01)
    assert cost.seconds == pytest.approx(cost.fixed_seconds + sum(cost.layer_seconds))
    hidden, output, _ = fitted.program_.layers
    assert hidden.n_table_bits == 3 < output.n_accum_bits == 4
    assert cost.table_bits == ((3,) if ENGINE == "concrete-python" else (4,))


def test_a_batch_costs_no_more_than_its_rows(fitted):
    one, four = fitted.estimate(), fitted.estimate(batch_size=4)
    assert one.seconds < four.seconds
    assert four.seconds_per_row == four.seconds / 4
    if one.runtime == "kernels":
        assert four.input_bytes == 4 * one.input_bytes


@needs_concrete_python("its circuits are timed with keys")
def test_an_estimate_makes_no_keys(fitted, monkeypatch):
    def refuse(self):
        raise AssertionError("keys were generated")

    name = "cipherlearn.engines.concrete_python.client.ClientRuntime.generate_keys"
    monkeypatch.setattr(name, refuse)
    monkeypatch.setattr("cipherlearn.circuit._cost._estimates", {})
    monkeypatch.setattr("cipherlearn.circuit._cost._times", {})
    assert fitted.estimate().runtime == "kernels"


@needs_concrete_python("evaluates compiled circuits only")
def test_without_kernels_the_circuit_itself_is_timed(fitted):
    cost = fitted.estimate(runtime="compiled")
    assert cost.runtime == "compiled"
    assert cost.seconds == pytest.approx(sum(cost.layer_seconds))
    assert "a compiled circuit" in str(cost)


@pytest.mark.parametrize("method", ["estimate", "report"])
def test_nothing_is_known_before_fit(method):
    with pytest.raises(NotFittedError):
        getattr(small(), method)()


# ---------------------------------------------------------------------- reports


def test_a_report_says_what_each_layer_holds(fitted):
    X, _ = blobs()
    report = fitted.report(X)
    hidden, output, wide = report.layers
    program = fitted.program_
    assert hidden.n_neurons == hidden.n_bootstraps == program.n_bootstraps
    assert hidden.observed_bits <= hidden.proven_bits <= hidden.allowed_bits == 3
    assert hidden.n_weights == np.count_nonzero(program.layers[0].weights, axis=1).max()
    assert hidden.budget == fitted.module_.budgets[0]
    assert (output.n_bootstraps, output.table_bits, output.name) == (0, None, "output")
    assert (wide.n_bootstraps, wide.table_bits, wide.name) == (0, None, "wide path")
    assert wide.proven_bits <= wide.allowed_bits == 16
    assert hidden.latency_share == report.cost.layer_seconds[0] / report.cost.seconds
    lines = str(report).splitlines()
    assert lines[0].split()[:2] == ["layer", "neurons"]
    assert lines[1].startswith("hidden 1")
    (bits,) = report.cost.table_bits
    assert f"{program.n_bootstraps} bootstraps of {bits} bits a row" in str(report)
    assert report._repr_html_().count("<tr>") == 4
    assert len(report.plot().patches) == 2


@needs_concrete_python("no approximate rounding")
def test_a_report_of_a_compiled_network_is_of_its_circuit():
    clf = small(module__n_hidden_accum_bits=4, module__rounding_bits=3).fit(*blobs())
    clf.compile(rounding="approximate", batch_size=2)
    report = clf.report()
    assert report.flip_rate == clf.circuit_.flip_rate
    assert "Approximate rounding changes" in str(report)
    assert report.cost == clf.estimate(rounding="approximate", batch_size=2)
    assert clf.report(rounding="approximate").flip_rate is None
    assert report.layers[0].observed_bits is None


# ---------------------------------------------------------------------- the search


@pytest.fixture
def known_seconds(monkeypatch):
    """Estimate a second for each bootstrap. A real estimate makes keys twice for each precision."""

    def estimate(net, **compile_options):
        return SimpleNamespace(seconds_per_row=1.0 + net.program_.n_bootstraps)

    for kind in (NeuralNetClassifier, NeuralNetRegressor):
        monkeypatch.setattr(kind, "estimate", estimate)


def test_the_fastest_within_the_tolerance_wins_and_is_compiled(known_seconds):
    X, y = blobs()
    grid = {"module__n_hidden_neurons": [1, 3, 6]}
    search = EncryptedSearchCV(small(), grid, tolerance=1.0, cv=3).fit(X, y)
    assert search.seconds_.shape == search.scores_.shape == (3, 1)
    assert search.best_params_ == {"module__n_hidden_neurons": 1}
    assert search.best_seconds_ == search.seconds_.min()
    np.testing.assert_array_equal(
        search.predict(X[:3], execute_in_fhe=True), search.best_estimator_.predict(X[:3])
    )
    strict = EncryptedSearchCV(small(), grid, tolerance=0.0, cv=3).fit(X, y)
    assert strict.best_score_ == strict.scores_.max()
    plain = GridSearchCV(small(), grid, cv=3).fit(X, y)
    np.testing.assert_array_equal(plain.cv_results_["mean_test_score"], search.scores_[:, 0])
    ax = search.plot_frontier()
    assert len(ax.collections) == 2


def test_the_best_within_a_latency_wins(known_seconds):
    X, y = blobs()
    grid = {"module__n_hidden_neurons": [1, 6]}
    search = EncryptedSearchCV(small(), grid, max_seconds=100.0, cv=3).fit(X, y)
    assert search.best_score_ == search.scores_.max()
    assert search.best_params_ == {"module__n_hidden_neurons": 6}
    within = EncryptedSearchCV(small(), grid, max_seconds=2.5, cv=3).fit(X, y)
    assert within.best_params_ == {"module__n_hidden_neurons": 1}
    with pytest.raises(ValueError, match=r"No candidate predicts a row in max_seconds=1e-06"):
        EncryptedSearchCV(small(), grid, max_seconds=1e-6, cv=3).fit(X, y)


@needs_concrete_python("no approximate rounding")
def test_rounding_and_error_probability_are_searched_by_simulated_scores(known_seconds):
    X, y = blobs()
    pipeline = make_pipeline(
        StandardScaler(),
        small(module__n_hidden_accum_bits=5, module__rounding_bits=3, max_epochs=60),
    )
    grid = {"neuralnetclassifier__module__n_hidden_neurons": [4]}
    options = {"rounding": "approximate", "p_error": [2**-40, 0.9]}
    search = EncryptedSearchCV(pipeline, grid, compile_options=options, cv=2).fit(X, y)
    assert search.scores_.shape == (1, 2)
    # Nine lookups in ten may go wrong, and the simulated score knows.
    good, broken = search.scores_[0]
    assert good > 0.8
    assert broken < good
    assert search.best_compile_options_ == {"rounding": "approximate", "p_error": 2**-40}
    assert search.best_estimator_[-1].circuit_.rounding == "approximate"


def test_a_regressor_is_searched_for_by_its_own_score():
    X, _ = blobs()
    grid = {"module__n_layers": [1], "module__n_w_bits": [2, 3]}
    parameters = {**SMALL, "max_epochs": 20}
    search = EncryptedSearchCV(
        NeuralNetRegressor(**parameters), grid, compile_options={"p_error": 2**-30}, cv=2
    ).fit(X, X[:, 0])
    assert search.best_score_ == pytest.approx(
        search.cv_results_["mean_test_score_0"][search.best_index_]
    )


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"tolerance": -0.1}, "at least 0. Got -0.1"),
        ({"max_seconds": 0}, "above 0, or None. Got 0"),
    ],
)
def test_an_impossible_demand_is_refused(argument, message):
    with pytest.raises(ValueError, match=message):
        EncryptedSearchCV(small(), **argument).fit(*blobs())
