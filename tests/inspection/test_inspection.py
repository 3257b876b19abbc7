"""Pictures of networks, compared with what they picture, and what notebooks show."""

# The same with any engine.
# engine: concrete-python

from __future__ import annotations

import builtins
import copy
import pickle
import sys

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from cases import TINY, blobs, needs_concrete_python
from sklearn import config_context
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from skorch.dataset import ValidSplit

from cipherlearn import EncryptedSearchCV, NeuralNetClassifier, NeuralNetRegressor
from cipherlearn._html import html_table
from cipherlearn.circuit import _cost
from cipherlearn.inspection import (
    AccumulatorDisplay,
    CircuitDisplay,
    IntegerLevelsDisplay,
    LatencyDisplay,
    NetworkDisplay,
    TrainingHistoryDisplay,
    WeightBudgetDisplay,
)

matplotlib.use("Agg")

DISPLAYS = [
    AccumulatorDisplay,
    CircuitDisplay,
    IntegerLevelsDisplay,
    NetworkDisplay,
    TrainingHistoryDisplay,
    WeightBudgetDisplay,
]
TAKE_ROWS = [AccumulatorDisplay, IntegerLevelsDisplay]
PANELS = [IntegerLevelsDisplay, WeightBudgetDisplay]


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def network(**kwargs):
    return NeuralNetClassifier(**{**TINY, **kwargs})


def targets(X):
    return X[:, 0] - 2 * X[:, 1]


MODELS = {
    "one layer": lambda X, y: network(module__n_layers=1).fit(X, y),
    "two layers": lambda X, y: network().fit(X, y),
    "three layers": lambda X, y: network(
        module__n_layers=3, module__n_hidden_neurons=[4, 3], module__n_hidden_accum_bits=3
    ).fit(X, y),
    "rounding": lambda X, y: network(
        module__n_accum_bits=5, module__n_hidden_accum_bits=4, module__rounding_bits=3
    ).fit(X, y),
    "l1": lambda X, y: network(module__budget="l1").fit(X, y),
    "not pruned": lambda X, y: network(module__pruning=False).fit(X, y),
    "fewer neurons": lambda X, y: network(module__n_hidden_neurons=6).fit(X, y).prune(X, y, 0.5),
    "regressor": lambda X, y: NeuralNetRegressor(**TINY).fit(X, targets(X)),
    "two targets": lambda X, y: NeuralNetRegressor(**TINY).fit(X, X[:, :2]),
    "pipeline": lambda X, y: make_pipeline(StandardScaler(), network()).fit(X, y),
    "nested": lambda X, y: make_pipeline(
        StandardScaler(), make_pipeline(MinMaxScaler(), network())
    ).fit(X, y),
    "search": lambda X, y: GridSearchCV(network(max_epochs=3), {"lr": [0.01]}, cv=2).fit(X, y),
    "frozen": lambda X, y: FrozenEstimator(network().fit(X, y)),
}


@pytest.fixture(scope="module")
def models():
    X, y = blobs()
    return {name: make(X, y) for name, make in MODELS.items()}


@pytest.fixture(params=list(MODELS))
def model(request, models):
    return models[request.param]


def inner(model):
    """The network of any of the models."""
    while not hasattr(model, "program_"):
        model = model[-1] if hasattr(model, "steps") else model.best_estimator_
    return model


def rows_of(model):
    """Rows as they reach the network."""
    X, _ = blobs()
    while hasattr(model, "steps"):
        X, model = model[:-1].transform(X), model[-1]
    return X


def heights(bars):
    return [bar.get_height() for bar in bars]


# ---------------------------------------------------------------------- what all have in common


@pytest.mark.parametrize("display", DISPLAYS)
def test_a_display_draws_every_kind_of_model(display, model):
    X, _ = blobs()
    drawn = display.from_estimator(model, *([X] if display in TAKE_ROWS else []))
    drawn.figure_.canvas.draw()
    assert isinstance(drawn, display)
    # As scikit-learn's: plot draws again, and returns the same object.
    axes = drawn.axes_ if display in PANELS else drawn.ax_
    assert drawn.plot() is drawn
    assert (drawn.axes_ if display in PANELS else drawn.ax_) is not axes


@pytest.mark.parametrize("display", DISPLAYS)
def test_a_display_draws_where_it_is_told(display, models):
    figure, (left, right) = plt.subplots(1, 2)
    drawn = display.from_estimator(models["two layers"], ax=left)
    assert drawn.figure_ is figure
    if display in PANELS:
        # In its place, as scikit-learn's PartialDependenceDisplay.
        assert len(figure.axes) == 4
        assert drawn.plot(ax=[left, right]).axes_.tolist() == [[left, right]]
        with pytest.raises(ValueError, match=r"one for each of the 1 x 2 panels\. Got 1"):
            drawn.plot(ax=[left])
    else:
        assert drawn.ax_ is left
    assert not plt.get_fignums()[1:]


@pytest.mark.parametrize("display", DISPLAYS)
@pytest.mark.parametrize(
    "unfitted",
    [
        network(),
        make_pipeline(StandardScaler(), network()),
        GridSearchCV(network(), {"lr": [0.01]}),
    ],
    ids=["estimator", "pipeline", "search"],
)
def test_nothing_is_drawn_before_fit(display, unfitted):
    with pytest.raises(NotFittedError):
        display.from_estimator(unfitted)


@pytest.mark.parametrize("display", DISPLAYS)
def test_another_kind_of_model_is_refused(display):
    X, y = blobs()
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    with pytest.raises(TypeError, match=r"must be a NeuralNetClassifier.*Got Pipeline of Logistic"):
        display.from_estimator(pipeline)


def test_without_matplotlib_the_error_names_the_extra(models, monkeypatch):
    real_import = builtins.__import__

    def without_matplotlib(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    for display in DISPLAYS:
        with pytest.raises(ImportError, match=r"cipherlearn\[plot\]"):
            display.from_estimator(models["two layers"])


def test_rows_of_another_width_are_refused(models):
    with pytest.raises(ValueError, match="features"):
        AccumulatorDisplay.from_estimator(models["two layers"], blobs()[0][:, :2])


# ---------------------------------------------------------------------- accumulators


def test_bars_are_the_proven_and_observed_bits(model):
    X, _ = blobs()
    display = AccumulatorDisplay.from_estimator(model, X)
    program = inner(model).program_
    proven, observed = display.bars_
    assert heights(proven) == [layer.n_accum_bits for layer in program.layers]
    codes = program.quantize(rows_of(model))
    for layer, height in zip(program.layers, heights(observed), strict=True):
        sums = codes @ layer.weights.T
        assert height == max(1, int(np.ptp(sums, axis=0).max()).bit_length())
        codes = layer(codes)
    limits = [segment[0][1] for segment in display.limits_.get_segments()]
    assert limits == inner(model).module_.accum_bits


def test_bars_say_which_bits_rounding_removes(models):
    display = AccumulatorDisplay.from_estimator(models["rounding"])
    layer = models["rounding"].program_.layers[0]
    removed = display.removed_bars_[0]
    assert removed.get_y() == layer.n_table_bits
    assert removed.get_y() + removed.get_height() == layer.n_accum_bits > layer.n_table_bits
    assert AccumulatorDisplay.from_estimator(models["two layers"]).removed_bars_ is None
    assert len(display.bars_) == 1


# ---------------------------------------------------------------------- weights


def test_bars_are_the_weights_that_the_budget_bounds(model):
    display = WeightBudgetDisplay.from_estimator(model)
    module, program = inner(model).module_, inner(model).program_
    for i, (layer, bars) in enumerate(zip(program.layers, display.bars_, strict=True)):
        assert heights(bars) == np.count_nonzero(layer.weights, axis=1).tolist()
        dots, line = display.dots_[i], display.lines_[i]
        if module.pruning and module.budgets[i] != module.linears[i].in_features:
            assert line.get_ydata()[0] == module.budgets[i] >= max(heights(bars))
        if module.max_widths[i] is None:
            assert dots is None
        else:
            part = dots.get_ydata() / line.get_ydata()[0]
            widths = [accumulator.high - accumulator.low for accumulator in layer.accumulators]
            np.testing.assert_allclose(part, np.array(widths) / module.max_widths[i])
            assert (part <= 1).all()


def test_a_line_is_drawn_only_where_there_is_a_limit(models):
    assert WeightBudgetDisplay.from_estimator(models["not pruned"]).lines_ == [None, None]
    bounded = WeightBudgetDisplay.from_estimator(models["l1"])
    # Widths alone are bounded, so no bar touches the line.
    assert bounded.budgets == [None, None]
    assert max(heights(bounded.bars_[0])) < bounded.lines_[0].get_ydata()[0]


def test_bars_count_the_weights_at_each_level(model):
    X, _ = blobs()
    display = IntegerLevelsDisplay.from_estimator(model, X)
    program = inner(model).program_
    codes = program.quantize(rows_of(model))
    layers = zip(program.layers, display.weight_bars_, display.code_bars_, strict=True)
    for layer, weight_bars, code_bars in layers:
        assert sum(heights(weight_bars)) == np.count_nonzero(layer.weights)
        for bar in weight_bars:
            level = round(bar.get_x() + bar.get_width() / 2)
            assert bar.get_height() == (layer.weights == level).sum()
        shares = [100 * (codes == code).mean() for code in range(len(code_bars))]
        np.testing.assert_allclose(heights(code_bars), shares)
        codes = layer(codes)
    alone = IntegerLevelsDisplay.from_estimator(model)
    assert alone.axes_.shape == (1, len(program.layers))
    assert alone.code_bars_ == []


# ---------------------------------------------------------------------- training


def test_phases_are_shaded_as_they_were_trained(models):
    display = TrainingHistoryDisplay.from_estimator(models["two layers"])
    # 0.4 of the 20 epochs are warm-up.
    assert display.phases == ["float"] * 8 + ["quantized"] * 12
    edges = [
        span.get_extents().transformed(display.ax_.transData.inverted()) for span in display.spans_
    ]
    np.testing.assert_allclose([(e.x0, e.x1) for e in edges], [(0.5, 8.5), (8.5, 20.5)])
    losses = models["two layers"].history_[:, "train_loss"]
    np.testing.assert_array_equal(display.lines_["train loss"].get_ydata(), losses)
    assert display.score_ax_ is None


def test_validation_and_scores_are_drawn_where_there_are_any():
    clf = network(train_split=ValidSplit(3, stratified=True)).fit(*blobs())
    display = TrainingHistoryDisplay.from_estimator(clf)
    assert list(display.lines_) == ["train loss", "valid loss", "valid acc"]
    drawn = display.lines_["valid acc"]
    np.testing.assert_array_equal(drawn.get_ydata(), clf.history_[:, "valid_acc"])
    assert drawn.axes is display.score_ax_


def pickled(clf):
    return pickle.loads(pickle.dumps(clf))


def stored_by_skops(clf):
    io = pytest.importorskip("skops.io")
    content = io.dumps(clf)
    return io.loads(content, trusted=io.get_untrusted_types(data=content))


@pytest.mark.parametrize("again", [copy.deepcopy, pickled, stored_by_skops])
def test_phases_survive_storage_and_further_training(again):
    X, y = blobs()
    clf = again(network(max_epochs=5).fit(X, y)).partial_fit(X, y).prune(X, y, 0.0)
    phases = TrainingHistoryDisplay.from_estimator(clf).phases
    assert phases == ["float"] * 2 + ["quantized"] * 13


def test_a_history_without_phases_is_drawn_unshaded(models):
    clf = copy.deepcopy(models["two layers"])
    for row in clf.history_:
        del row["event_quantized"]
    display = TrainingHistoryDisplay.from_estimator(clf)
    assert display.spans_ == []
    assert len(display.lines_["train loss"].get_ydata()) == 20


# ---------------------------------------------------------------------- networks and circuits


def test_edges_are_the_weights_that_are_not_zero(model):
    display = NetworkDisplay.from_estimator(model)
    program = inner(model).program_
    first = program.layers[0].weights != 0
    features = program.quantizer.feature
    pairs = {(j, features[code]) for j, code in zip(*np.nonzero(first), strict=True)}
    counts = [len(edges.get_segments()) for edges in display.edges_]
    assert counts == [len(pairs), *(np.count_nonzero(la.weights) for la in program.layers[1:])]
    assert set(display.features_) == {feature for _, feature in pairs}
    drawn = [len(nodes.get_offsets()) for nodes in display.nodes_]
    assert drawn == [len(display.features_), *(len(layer.weights) for layer in program.layers)]


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
    clf = network(module__n_hidden_neurons=8).fit(table, labels)
    assert {"ant", "bee", "cow"} < set(texts(NetworkDisplay.from_estimator(clf).ax_))
    assert NetworkDisplay.from_estimator(clf).feature_names == list(table)
    pipeline = make_pipeline(StandardScaler(), network()).fit(table, labels)
    assert NetworkDisplay.from_estimator(pipeline).feature_names == list(table)
    tiny = models["two layers"]
    assert NetworkDisplay.from_estimator(tiny).feature_names == ["x0", "x1", "x2", "x3"]
    given = NetworkDisplay.from_estimator(tiny, feature_names="wxyz", class_names="ABC")
    assert (given.feature_names, given.output_names) == (list("wxyz"), list("ABC"))
    with pytest.raises(ValueError, match=r"class_names must hold 3 names\. Got 2"):
        NetworkDisplay.from_estimator(tiny, class_names=["A", "B"])
    # Long names are cut.
    assert max(map(len, texts(NetworkDisplay.from_estimator(clf).ax_))) <= 28


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
    assert [s.n_bootstraps for s in lookups] == [len(la.weights) for la in program.layers[:-1]]
    sums = [stage.details for stage in display.stages if stage.title.endswith("sums")]
    for layer, details in zip(program.layers, sums, strict=True):
        assert f"of {layer.n_accum_bits} bit" in details
    sides = [stage.side for stage in display.stages]
    assert sides == sorted(sides[:-2]) + ["client"] * 2
    assert "not compiled yet" in display.notes


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


# ---------------------------------------------------------------------- latency


def test_models_are_scored_in_the_clear_with_the_times_given(models):
    X, y = blobs()
    chosen = {name: models[name] for name in ("one layer", "two layers", "pipeline")}
    times = {"pipeline": 0.5, "one layer": 0.01, "two layers": 0.2}
    display = LatencyDisplay.from_estimators(chosen, X, y, seconds=times)
    for points, (name, model) in zip(display.points_, chosen.items(), strict=True):
        assert points.get_offsets().tolist() == [[times[name], model.score(X, y)]]
        assert points.get_label() == name
    listed = LatencyDisplay.from_estimators(
        list(chosen.values()), X, y, seconds=[1, 2, 3], scoring="neg_log_loss"
    )
    assert (listed.names, listed.ax_.get_ylabel()) == (None, "neg_log_loss")


def test_the_frontier_holds_what_no_faster_model_beats():
    display = LatencyDisplay(seconds=[3, 1, 2, 4], scores=[0.9, 0.7, 0.6, 0.8], chosen=0).plot()
    assert display.frontier_.get_xydata().tolist() == [[1, 0.7], [3, 0.9]]
    assert display.chosen_.get_offsets().tolist() == [[3, 0.9]]


@pytest.mark.parametrize(
    ("estimators", "seconds", "message"),
    [
        ({"a": 1, "b": 2}, {"a": 0.1}, r"by their names, \['a', 'b'\]"),
        ([1, 2], [0.1], "one time for each"),
        ([1, 2], {"a": 0.1, "b": 0.2}, "of which there are none for 2"),
        ([1], [0], "seconds must be above 0"),
        ([], None, "at least one model"),
    ],
)
def test_times_of_other_models_are_refused(estimators, seconds, message):
    with pytest.raises(ValueError, match=message):
        LatencyDisplay.from_estimators(estimators, [[0.0]], [0], seconds=seconds)


def test_without_times_they_are_estimated(models):
    X, y = blobs()
    clf = copy.deepcopy(models["one layer"])
    (seconds,) = LatencyDisplay.from_estimators([clf], X, y).seconds
    assert seconds == clf.estimate().seconds_per_row
    clf.compile(batch_size=4)
    (shared,) = LatencyDisplay.from_estimators([clf], X, y).seconds
    assert shared == clf.estimate(batch_size=4).seconds_per_row


def test_a_search_is_drawn_with_its_winner():
    grid = {"module__n_layers": [1], "max_epochs": [2, 20]}
    search = EncryptedSearchCV(network(), grid, cv=2, tolerance=0.5)
    with pytest.raises(NotFittedError):
        LatencyDisplay.from_search(search)
    search.fit(*blobs())
    display = LatencyDisplay.from_search(search)
    best = [search.best_seconds_, search.best_score_]
    assert display.chosen_.get_offsets().tolist() == [best]
    expected = np.column_stack([search.seconds_.ravel(), search.scores_.ravel()])
    np.testing.assert_array_equal(display.points_[0].get_offsets(), expected)
    _, ax = plt.subplots()
    assert search.plot_frontier(ax=ax) is ax
    with pytest.raises(TypeError, match=r"must be an EncryptedSearchCV.*Got GridSearchCV"):
        LatencyDisplay.from_search(GridSearchCV(network(), {}))


# ---------------------------------------------------------------------- notebooks


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
    monkeypatch.setattr(_cost, "_calibrations", {})
    clf.compile()
    assert "Estimated" not in clf._repr_html_()
    assert _cost._calibrations == {}
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
