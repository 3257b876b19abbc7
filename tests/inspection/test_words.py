"""Neurons, bootstraps and bits are counted alike wherever they are shown, and values read well."""

# What it imports is in no environment of the other engine.
# engine: concrete-python

from __future__ import annotations

import copy
import pickle
import re

import matplotlib
import matplotlib.pyplot as plt
import pytest
from cases import TINY, blobs
from sklearn.pipeline import make_pipeline

from cipherlearn import EncryptedSearchCV, NeuralNetClassifier
from cipherlearn.circuit import _circuit, _cost
from cipherlearn.circuit._cost import CostEstimate
from cipherlearn.deployment import FHEClient, FHEServer
from cipherlearn.inspection import CircuitDisplay, NetworkDisplay, WeightBudgetDisplay
from cipherlearn.inspection._latency_display import frontier
from cipherlearn.inspection._report import make_report

matplotlib.use("Agg")

LINEAR = {**TINY, "module__n_layers": 1, "module__n_accum_bits": 8, "max_epochs": 5}
COST = CostEstimate(
    engine="concrete-python",
    runtime="kernels",
    n_bootstraps=5,
    table_bits=(4,),
    seconds=0.5,
    seconds_per_row=0.25,
    fixed_seconds=0.1,
    layer_seconds=(0.4,),
    key_bytes=25_346_400,
    input_bytes=864,
    output_bytes=33_048,
    keyswitch_seconds=0.1,
)


@pytest.fixture(scope="module")
def dropped():
    """A network some of whose neurons cannot change any output."""
    clf = NeuralNetClassifier(**{**TINY, "module__n_hidden_neurons": 6, "max_epochs": 3})
    clf.fit(*blobs())
    # Nothing reads them.
    clf.module_.linears[1].mask[:, [1, 4]] = 0
    clf._keep_result()
    return clf


@pytest.fixture(scope="module")
def linear():
    return NeuralNetClassifier(**LINEAR).fit(*blobs())


def titles(display):
    axes = display.axes_[0] if hasattr(display, "axes_") else [display.ax_]
    return "\n".join(
        text for ax in axes for text in [ax.get_title(), *(t.get_text() for t in ax.texts)]
    )


# ---------------------------------------------------------------------- neurons


def test_all_count_the_neurons_in_the_program_and_say_how_many_were_trained(dropped):
    program = dropped.program_
    n_neurons = program.n_bootstraps
    assert n_neurons <= 4
    assert dropped.module_.n_neurons == [6, 3, 3]
    report = make_report(program, dropped.module_.n_neurons, [9] * 3, [9] * 3, COST)
    assert (report.layers[0].n_neurons, report.layers[0].n_trained) == (n_neurons, 6)
    displays = [
        display.from_estimator(dropped)
        for display in (CircuitDisplay, NetworkDisplay, WeightBudgetDisplay)
    ]
    for text in (*map(titles, displays), str(report), report._repr_html_(), dropped._repr_html_()):
        assert re.search(rf"\b{n_neurons} of 6\b", text)
    for text in map(titles, displays):
        assert f"{n_neurons} of 6 neurons" in text
        # All outputs are kept.
        assert "3 neurons" in text
        assert "of 3 neurons" not in text
    circuit, network, weights = displays
    assert sum(stage.n_bootstraps for stage in circuit.stages) == n_neurons
    assert len(network.nodes_[1].get_offsets()) == len(weights.bars_[0]) == n_neurons
    # What they read is counted alike, too.
    total = sum(bar.get_height() for bar in weights.bars_[0])
    assert f"{total:.0f} non-zero weight" in circuit.stages[2].details
    assert f"<td>{total:.0f}</td>" in dropped._repr_html_()
    assert report.layers[0].n_weights == max(bar.get_height() for bar in weights.bars_[0])
    plt.close("all")


def test_bootstraps_of_rounding_are_told_apart_everywhere():
    rounding = {"module__n_accum_bits": 5, "module__n_hidden_accum_bits": 4}
    clf = NeuralNetClassifier(**{**TINY, **rounding, "module__rounding_bits": 3, "max_epochs": 3})
    program = clf.fit(*blobs()).program_
    n, bits = program.n_bootstraps, program.layers[0].n_table_bits
    words = (
        f"{n} bootstraps of {bits} bits a row, and {program.n_rounding_bootstraps} of 1 bit for "
        "exact rounding"
    )
    assert program.n_rounding_bootstraps > 0
    assert words in repr(program)
    assert words in clf._repr_html_()
    display = CircuitDisplay.from_estimator(clf)
    assert display.notes[0] == words
    plt.close("all")
    assert sum(s.n_bootstraps for s in display.stages) == n + program.n_rounding_bootstraps
    assert program.bootstraps("approximate") == f"{n} bootstraps of {bits} bits a row"


# ---------------------------------------------------------------------- reprs


def test_a_program_says_its_shape(dropped, linear):
    program, n = dropped.program_, dropped.program_.n_bootstraps
    bits = program.layers[0].n_table_bits
    assert repr(program) == (
        f"<IntegerProgram: 4 features in {program.n_codes} codes of 2 bits, {n} hidden neurons, "
        f"3 outputs, {n} bootstraps of {bits} bits a row>"
    )
    assert "no hidden neurons, 3 outputs, no bootstraps>" in repr(linear.program_)
    hidden, output, wide_path = program.layers
    assert repr(hidden) == (
        f"<IntegerLayer: {n} neurons of {len(program.inputs[0])} inputs, {hidden.n_weights} "
        f"non-zero weights, sums of {hidden.n_accum_bits} bits, {n} tables of {bits} bits>"
    )
    for layer in output, wide_path:
        assert repr(layer).endswith(f"sums of {layer.n_accum_bits} bits, no tables>")
    assert program._repr_html_().count("<tr>") == 4
    assert "<td>wide path</td>" in program._repr_html_()


def test_a_circuit_says_what_it_was_compiled_for_and_whether_there_are_keys(linear, monkeypatch):
    clf = copy.deepcopy(linear)
    circuit = clf.compile()
    start = "<Circuit: 1 layer, no bootstraps, "
    assert repr(circuit) == f"{start}p_error ≤ 2⁻⁴⁰, keys not generated>"
    assert "Keys are generated when first needed." in circuit._repr_html_()
    circuit.keygen()
    assert repr(circuit).endswith(", keys generated>")
    assert "Keys are generated." in circuit._repr_html_()
    other = clf.compile(global_p_error=0.01, batch_size=3)
    assert repr(other) == f"{start}3 rows a call, global_p_error ≤ 0.01, keys not generated>"
    # To look at it needs no engine, which would compile or make keys.
    again = pickle.loads(pickle.dumps(circuit))
    monkeypatch.setattr(_circuit, "load_engine", None)
    assert repr(again) == f"{start}p_error ≤ 2⁻⁴⁰, keys not generated>"
    again._repr_html_()


def test_a_cost_reads_as_in_a_report(dropped):
    line = (
        "5 bootstraps of 4 bits a row. About 0.25 s a row and 0.5 s a call: 0.3 s for bootstraps, "
        "0.1 s for keyswitches, and 0.1 s for the rest. Timed with concrete-python, its kernels."
    )
    sizes = "Evaluation keys 25 MB, an encrypted batch 0.9 kB, its result 33.0 kB."
    assert repr(COST) == f"<CostEstimate: {line} {sizes}>"
    assert COST._repr_html_().count("<p>") == 2
    report = make_report(dropped.program_, [6, 3, 3], [9] * 3, [9] * 3, COST)
    assert repr(report) == str(report)
    assert str(report).endswith(f"\n\n{line}\n{sizes}")


def test_a_fitted_search_shows_its_frontier_and_the_winner(monkeypatch):
    monkeypatch.setattr(_cost, "_estimates", {})
    grid = {"module__n_w_bits": [2, 3], "max_epochs": [1, 5]}
    search = EncryptedSearchCV(
        NeuralNetClassifier(**LINEAR), grid, cv=2, compile_options={"batch_size": [1, 2]}
    )
    unfitted = repr(search)
    assert "\n" not in unfitted
    assert "Not fitted" in search._repr_html_()
    search.fit(*blobs())
    parameters, summary, *choices = repr(search).splitlines()
    assert parameters == unfitted
    assert summary.startswith("8 choices, ")
    best = frontier(search.seconds_.ravel(), search.scores_.ravel())
    # The fastest of equal ones may not be the frontier's.
    assert len(best) <= len(choices) <= len(best) + 1
    (chosen,) = [line for line in choices if line.endswith("(chosen)")]
    for name, value in (search.best_params_ | search.best_compile_options_).items():
        assert f"{name}={value!r}" in chosen
    assert f"{search.best_seconds_:.3g} s a row, score {search.best_score_:.4g}: " in chosen
    shown = search._repr_mimebundle_()["text/html"]
    assert "sk-top-container" in shown
    assert shown.count("<td>(chosen)</td>") == 1
    # Parameters set later are not those that it was fitted with.
    search.set_params(compile_options=None)
    assert repr(search).splitlines()[1:] == [summary, *choices]
    assert repr(make_pipeline(search))


def test_a_client_and_a_server_name_the_model_and_no_secret(linear_artefacts):
    server = FHEServer(linear_artefacts / "server.zip")
    client = FHEClient(linear_artefacts / "client.zip")
    model = f"classifier of 4 features and 3 classes, 2 rows a call, model {client.model_id[:12]}"
    assert repr(client) == f"<FHEClient: {model}, no keys yet>"
    assert repr(server) == f"<FHEServer: {model}, evaluation keys of 0 clients in memory>"
    client.generate_keys()
    server.add_keys(client.evaluation_keys())
    assert repr(client) == f"<FHEClient: {model}, keys {client.key_id[:12]}>"
    assert repr(server) == f"<FHEServer: {model}, evaluation keys of 1 client in memory>"
