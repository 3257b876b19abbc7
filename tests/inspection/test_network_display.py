"""Pictures of networks and circuits, edge by edge and stage by stage."""

# The same with any engine.
# engine: concrete-python

from __future__ import annotations

import copy

import numpy as np
import pytest
from cases import blobs, inner, needs_concrete_python, network
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cipherlearn.inspection import CircuitDisplay, NetworkDisplay


def test_edges_are_the_weights_that_are_not_zero(model):
    display = NetworkDisplay.from_estimator(model)
    program = inner(model).program_
    first = program.layers[0].weights != 0
    features = program.quantizer.feature[program.inputs[0]]
    pairs = {(j, features[code]) for j, code in zip(*np.nonzero(first), strict=True)}
    counts = [len(edges.get_segments()) for edges in display.edges_]
    chain = [
        layer
        for name, layer in zip(program.layer_names, program.layers, strict=True)
        if name != "wide path"
    ]
    assert counts == [len(pairs), *(np.count_nonzero(layer.weights) for layer in chain[1:])]
    assert set(display.features_) == {feature for _, feature in pairs}
    drawn = [len(nodes.get_offsets()) for nodes in display.nodes_]
    assert drawn == [len(display.features_), *(len(layer.weights) for layer in chain)]


def test_a_note_counts_the_weights_of_the_wide_path(models):
    clf = models["two layers"]
    note = texts(NetworkDisplay.from_estimator(clf).ax_)[-1]
    assert note.startswith(f"Not drawn: the wide path, {clf.program_.layers[-1].n_weights} weights")
    # Of a network of one layer, which is drawn, there is nothing to say.
    drawn = NetworkDisplay.from_estimator(models["one layer"])
    assert "Not drawn" not in "".join(texts(drawn.ax_))


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_edges_of_a_feature_are_as_wide_as_its_weights_and_coloured_by_their_sum():
    display = NetworkDisplay(
        weights=[np.array([[2, 1, 0], [-1, 1, -3]])],
        code_features=[0, 0, 1],
        feature_names=["age", "income"],
        output_names=["no", "yes"],
        layer_names=["output"],
    ).plot()
    (edges,) = display.edges_
    # age to no: 3, age to yes: 0 of 2, income to yes: -3.
    narrow = edges.get_linewidths()
    assert narrow[0] == narrow[2] > narrow[1]
    red, _, blue, _ = np.array(edges.get_colors()).T
    assert blue[0] > red[0]
    assert blue[1] == red[1]
    assert blue[2] < red[2]
    assert {"age", "income", "no", "yes"} <= set(texts(display.ax_))


def test_names_come_from_the_data_or_the_pipeline_or_the_caller(models):
    X, y = blobs()
    labels = np.array(["ant", "bee", "cow"])[y]
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(X, columns=["a", "b", "c", "d" * 40])
    clf = network(module__n_hidden_neurons=8, module__n_components=4).fit(table, labels)
    assert {"ant", "bee", "cow"} < set(texts(NetworkDisplay.from_estimator(clf).ax_))
    components = [f"component {i + 1}" for i in range(clf.program_.quantizer.n_components)]
    assert len(components) == clf.n_components_ > 0
    assert NetworkDisplay.from_estimator(clf).feature_names == [*table, *components]
    alone = network(module__n_components=0)
    pipeline = make_pipeline(StandardScaler(), alone).fit(table, labels)
    assert NetworkDisplay.from_estimator(pipeline).feature_names == list(table)
    tiny = models["two layers"]
    assert NetworkDisplay.from_estimator(tiny).feature_names[:4] == ["x0", "x1", "x2", "x3"]
    given = NetworkDisplay.from_estimator(tiny, feature_names="wxyz", class_names="ABC")
    assert (given.feature_names[:4], given.output_names) == (list("wxyz"), list("ABC"))
    with pytest.raises(ValueError, match=r"class_names must hold 3 names\. Got 2"):
        NetworkDisplay.from_estimator(tiny, class_names=["A", "B"])
    # Long names are cut.
    assert "d" * 27 + "…" in texts(NetworkDisplay.from_estimator(clf).ax_)


def test_features_beyond_the_most_are_left_out_and_counted(models):
    clf = models["two layers"]
    every = NetworkDisplay.from_estimator(clf)
    fewer = NetworkDisplay.from_estimator(clf, max_features=1)
    assert len(fewer.features_) == 1
    assert f"({len(every.features_) - 1} more are read)" in texts(fewer.ax_)[1 + 3]


def test_stages_tell_shapes_bits_and_bootstraps(model):
    display = CircuitDisplay.from_estimator(model)
    program = inner(model).program_
    assert len(display.boxes_) == len(display.stages)
    lookups = [stage for stage in display.stages if stage.title.endswith("table lookups")]
    assert [s.n_bootstraps for s in lookups] == [len(la.weights) for la in program.hidden_layers]
    sums = [stage.details for stage in display.stages if stage.title.endswith("sums")]
    for layer, details in zip(program.layers, sums, strict=True):
        assert f"of {layer.n_accum_bits} bit" in details
    sides = [stage.side for stage in display.stages]
    assert sides == sorted(sides[:-2]) + ["client"] * 2
    assert "not compiled yet" in display.notes


def test_the_wide_path_is_beside_the_others(models):
    display = CircuitDisplay.from_estimator(models["two layers"])
    (wide_path,) = [stage for stage in display.stages if stage.is_apart]
    assert (wide_path.side, wide_path.title) == ("server", "Wide path: sums")
    encrypt, decrypt, decide = display.stages[1], *display.stages[-2:]
    inputs = models["two layers"].program_.inputs
    assert encrypt.details == f"{len(inputs[0])} + {len(inputs[1])} integers"
    assert decrypt.details == "3 + 3 integers"
    assert decide.details.startswith("scale, add both, ")
    left = {
        stage.title: box.get_x() for stage, box in zip(display.stages, display.boxes_, strict=True)
    }
    assert left["Decrypt"] < left["Output: sums"] < left["Wide path: sums"]
    alone = CircuitDisplay.from_estimator(models["one layer"])
    assert not any(stage.is_apart for stage in alone.stages)
    assert alone.stages[-2].details == "3 integers"


@needs_concrete_python("exact rounding takes many minutes")
def test_a_compiled_circuit_has_the_bootstraps_of_its_picture(models):
    clf = copy.deepcopy(models["rounding"])
    clf.compile(batch_size=2, p_error=2.0**-20)
    display = CircuitDisplay.from_estimator(clf)
    assert 2 * sum(stage.n_bootstraps for stage in display.stages) == clf.circuit_.n_bootstraps
    assert "error probability of a bootstrap ≤ 2⁻²⁰" in display.notes
    assert "concrete-python, 2 rows a call" in display.notes
    clf.compile(global_p_error=0.01, rounding="approximate")
    approximate = CircuitDisplay.from_estimator(clf)
    assert sum(s.n_bootstraps for s in approximate.stages) == clf.circuit_.n_bootstraps
    assert "error probability of a call ≤ 0.01" in approximate.notes
