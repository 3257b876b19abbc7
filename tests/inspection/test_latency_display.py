"""Pictures of scores against latency."""

# The same with any engine.
# engine: concrete-python

from __future__ import annotations

import copy

import matplotlib.pyplot as plt
import numpy as np
import pytest
from cases import blobs, network
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

from cipherlearn import EncryptedSearchCV
from cipherlearn.inspection import LatencyDisplay


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
