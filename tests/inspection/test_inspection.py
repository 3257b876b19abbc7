"""Pictures of networks, compared with what they picture."""

# The same with any engine.
# engine: concrete-python

from __future__ import annotations

import builtins
import copy
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from cases import blobs, inner, network, pickled
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.dataset import ValidSplit

from cipherlearn.inspection import (
    AccumulatorDisplay,
    CircuitDisplay,
    IntegerLevelsDisplay,
    NetworkDisplay,
    TrainingHistoryDisplay,
    WeightBudgetDisplay,
)

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


def rows_of(model):
    """Rows as they reach the network."""
    X, _ = blobs()
    while hasattr(model, "steps"):
        X, model = model[:-1].transform(X), model[-1]
    return X


def read_by_layers(model):
    """The layers of a network, and what each reads."""
    program, read = inner(model).program_, []
    inputs = program.split(program.quantize(rows_of(model)))
    codes = inputs[0]
    for name, layer in zip(program.layer_names, program.layers, strict=True):
        read.append(inputs[1] if name == "wide path" else codes)
        if layer.tables is not None:
            codes = layer(codes)
    return program.layers, read


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
    figure, (left, _) = plt.subplots(1, 2)
    drawn = display.from_estimator(models["two layers"], ax=left)
    assert drawn.figure_ is figure
    if display in PANELS:
        # In its place, as scikit-learn's PartialDependenceDisplay.
        assert len(figure.axes) == 5
        axes = figure.subplots(1, 3)
        assert drawn.plot(ax=axes).axes_.tolist() == [axes.tolist()]
        with pytest.raises(ValueError, match=r"one for each of the 1 x 3 panels\. Got 1"):
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
    for layer, codes, height in zip(*read_by_layers(model), heights(observed), strict=True):
        sums = codes @ layer.weights.T
        assert height == max(1, int(np.ptp(sums, axis=0).max()).bit_length())
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
    *lines, of_wide_path = WeightBudgetDisplay.from_estimator(models["not pruned"]).lines_
    assert lines == [None, None]
    assert of_wide_path is not None
    bounded = WeightBudgetDisplay.from_estimator(models["l1"])
    # Widths alone are bounded, as always in the wide path, so no bar touches the line.
    assert bounded.budgets == [None, None, None]
    for bars, line in zip(bounded.bars_, bounded.lines_, strict=True):
        assert max(heights(bars)) < line.get_ydata()[0]


def test_bars_count_the_weights_at_each_level(model):
    X, _ = blobs()
    display = IntegerLevelsDisplay.from_estimator(model, X)
    program = inner(model).program_
    layers = zip(*read_by_layers(model), display.weight_bars_, display.code_bars_, strict=True)
    for layer, codes, weight_bars, code_bars in layers:
        assert sum(heights(weight_bars)) == np.count_nonzero(layer.weights)
        for bar in weight_bars:
            level = round(bar.get_x() + bar.get_width() / 2)
            assert bar.get_height() == (layer.weights == level).sum()
        shares = [100 * (codes == code).mean() for code in range(len(code_bars))]
        np.testing.assert_allclose(heights(code_bars), shares)
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
