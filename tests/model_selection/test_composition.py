"""Composition with scikit-learn's searches, meta-estimators, metadata routing and frames."""

# What it imports is in no environment of the other engine.
# engine: concrete-python

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from cases import TINY, blobs
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingRandomSearchCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from cipherlearn import EncryptedSearchCV, NeuralNetClassifier, NeuralNetRegressor, make_fhe_scorer

# Predicts an encrypted row in milliseconds.
LINEAR = {**TINY, "module__n_layers": 1, "module__n_accum_bits": 4}


@pytest.fixture(scope="module")
def rows():
    X, y = blobs(3)
    return X, np.array(["ant", "bee", "cow"])[y]


@pytest.fixture
def linear():
    return NeuralNetClassifier(**LINEAR)


@pytest.fixture
def regressor():
    return NeuralNetRegressor(**LINEAR)


def targets(X):
    return 100 + 5 * X[:, 0] - 2 * X[:, 1]


def assert_same_encrypted(model, network, X, **params):
    """Compile a network within a model, and compare encrypted with clear predictions."""
    network.compile()
    encrypted = model.predict(X[:3], execute_in_fhe=True, **params)
    np.testing.assert_array_equal(encrypted, model.predict(X[:3]))


# ---------------------------------------------------------------------- searches


@pytest.mark.parametrize("search", [GridSearchCV, HalvingRandomSearchCV], ids=lambda c: c.__name__)
def test_a_search_chooses_parameters_of_the_module_and_predicts_encrypted(search, linear, rows):
    X, y = rows
    grid = {"module__n_a_bits": [1, 2], "lr": [0.01, 0.03]}
    options = {"random_state": 0, "min_resources": 30} if search is HalvingRandomSearchCV else {}
    fitted = search(linear, grid, cv=2, error_score="raise", **options).fit(X, y)
    assert fitted.best_params_.keys() == grid.keys()
    best = fitted.best_estimator_
    assert best.program_.quantizer.n_bits == best.module__n_a_bits
    assert_same_encrypted(best, best, X)


def test_cross_validation_scores_and_predicts(linear, rows):
    X, y = rows
    assert cross_val_score(linear, X, y, cv=3).mean() > 0.7
    assert (cross_val_predict(linear, X, y, cv=3) == y).mean() > 0.7


# ---------------------------------------------------------------------- meta-estimators


def test_a_pipeline_of_mixed_columns_predicts_encrypted(linear, rows):
    X, y = rows
    frame = pd.DataFrame(X, columns=[*"abcd"]).assign(kind=np.where(X[:, 0] > 0, "new", "old"))
    columns = ColumnTransformer(
        [("numbers", StandardScaler(), [*"abcd"]), ("kinds", OneHotEncoder(), ["kind"])]
    )
    pipe = make_pipeline(columns, linear).fit(frame, y)
    assert pipe.score(frame, y) > 0.7
    assert_same_encrypted(pipe, pipe[-1], frame)


def test_a_pipeline_passes_names_on_that_set_output_makes(linear, rows):
    X, y = rows
    frame = pd.DataFrame(X, columns=[*"abcd"])
    pipe = make_pipeline(StandardScaler(), linear).set_output(transform="pandas").fit(frame, y)
    assert [*pipe[-1].feature_names_in_] == [*"abcd"]
    assert_same_encrypted(pipe, pipe[-1], frame)


def test_a_vote_counts_the_network_and_its_members_predict_encrypted(linear, rows):
    X, y = rows
    vote = VotingClassifier([("a", linear), ("b", linear)], voting="soft").fit(X, y)
    assert vote.score(X, y) > 0.7
    member = vote.estimators_[0]
    assert_same_encrypted(member, member, X)


def test_a_stack_predicts_encrypted_with_the_network_on_top(linear, rows):
    X, y = rows
    stack = StackingClassifier([("below", linear)], final_estimator=linear, cv=2).fit(X, y)
    assert stack.score(X, y) > 0.7
    assert_same_encrypted(stack, stack.final_estimator_, X)


def test_bagging_clones_and_resamples_the_network(linear, rows):
    X, y = rows
    bag = BaggingClassifier(linear, n_estimators=2, random_state=0).fit(X, y)
    assert bag.score(X, y) > 0.7


def test_probabilities_are_calibrated(linear, rows):
    X, y = rows
    calibrated = CalibratedClassifierCV(linear, cv=2).fit(X, y)
    assert calibrated.score(X, y) > 0.7
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1)


def test_a_frozen_network_is_calibrated_as_it_is_and_predicts_encrypted(linear, rows):
    X, y = rows
    frozen = FrozenEstimator(linear.fit(X, y))
    calibrated = CalibratedClassifierCV(frozen, cv=2).fit(X, y)
    assert calibrated.calibrated_classifiers_[0].estimator.estimator is linear
    assert_same_encrypted(frozen, linear, X)


def test_one_network_for_each_class_against_the_rest(linear, rows):
    X, y = rows
    one_vs_rest = OneVsRestClassifier(linear).fit(X, y)
    assert one_vs_rest.score(X, y) > 0.7
    for network in one_vs_rest.estimators_:
        assert_same_encrypted(network, network, X)


def test_one_network_for_each_target(regressor, rows):
    X, _ = rows
    y = np.column_stack([targets(X), -targets(X)])
    multi = MultiOutputRegressor(regressor).fit(X, y)
    assert multi.predict(X).shape == y.shape
    for network in multi.estimators_:
        assert_same_encrypted(network, network, X)


def test_targets_are_transformed_around_encrypted_predictions(regressor, rows):
    X, _ = rows
    model = TransformedTargetRegressor(regressor, func=np.log, inverse_func=np.exp)
    model.fit(X, targets(X))
    assert_same_encrypted(model, model.regressor_, X)


# ---------------------------------------------------------------------- metadata routing


def test_routing_sends_execute_in_fhe_to_predict(linear, rows):
    X, y = rows
    with sklearn.config_context(enable_metadata_routing=True):
        linear.set_predict_request(execute_in_fhe=True, n_jobs=True)
        pipe = Pipeline([("scale", StandardScaler()), ("net", linear)]).fit(X, y)
        assert_same_encrypted(pipe, pipe[-1], X, n_jobs=1)
        with pytest.raises(TypeError, match="execute_in_fh"):
            pipe.predict(X, execute_in_fh=True)


def test_routing_refuses_what_was_not_asked_for(linear, rows):
    X, y = rows
    with sklearn.config_context(enable_metadata_routing=True):
        pipe = Pipeline([("net", linear)]).fit(X, y)
        with pytest.raises(sklearn.exceptions.UnsetMetadataPassedError, match="set_predict_requ"):
            pipe.predict(X, execute_in_fhe=True)


def test_routing_sends_weights_to_fit_and_to_encrypted_scores(linear, rows):
    X, y = rows
    weights = np.random.default_rng(0).integers(0, 10, len(X))
    with sklearn.config_context(enable_metadata_routing=True):
        clear = make_scorer(accuracy_score).set_score_request(sample_weight=True)
        unasked = make_scorer(accuracy_score).set_score_request(sample_weight=False)
        linear.set_fit_request(sample_weight=True).set_params(lr=0.001)
        options = {"cv": 2, "params": {"sample_weight": weights}, "error_score": "raise"}
        expected = cross_val_score(linear, X, y, scoring=clear, **options)
        encrypted = cross_val_score(linear, X, y, scoring=make_fhe_scorer(clear), **options)
        unweighted = cross_val_score(linear, X, y, scoring=unasked, **options)
        search = EncryptedSearchCV(linear, {"lr": [0.001]}, scoring=clear, cv=2)
        search.fit(X, y, sample_weight=weights)
    np.testing.assert_array_equal(encrypted, expected)
    assert (encrypted != unweighted).any()
    assert search.best_score_ == expected.mean()


# ---------------------------------------------------------------------- encrypted scores


@pytest.mark.parametrize("scoring", [None, "accuracy", "neg_log_loss"])
def test_scores_of_encrypted_rows_equal_the_clear_ones(scoring, linear, rows):
    X, y = rows
    clear = cross_val_score(linear, X, y, cv=2, scoring=scoring, error_score="raise")
    encrypted = cross_val_score(
        linear, X, y, cv=2, scoring=make_fhe_scorer(scoring), error_score="raise"
    )
    np.testing.assert_array_equal(encrypted, clear)


def test_an_encrypted_score_is_made_by_the_circuit(linear, rows, monkeypatch):
    X, y = rows
    linear.fit(X, y).compile()
    counted = []
    decrypt = linear.circuit_.decrypt
    monkeypatch.setattr(
        linear.circuit_, "decrypt", lambda results: counted.append(1) or decrypt(results)
    )
    make_fhe_scorer()(linear, X[:7], y[:7])
    assert sum(counted) == 7
    make_fhe_scorer(max_rows=4, random_state=0)(linear, X, y)
    assert sum(counted) == 11
    make_fhe_scorer(execute_in_fhe="simulate")(linear, X, y)
    assert sum(counted) == 11


def test_an_encrypted_score_is_one_of_several(linear, rows):
    X, y = rows
    scoring = {"clear": "accuracy", "encrypted": make_fhe_scorer("accuracy", batch_size=10)}
    results = cross_validate(linear, X, y, cv=2, scoring=scoring, return_estimator=True)
    np.testing.assert_array_equal(results["test_encrypted"], results["test_clear"])
    assert {clf.circuit_.batch_size for clf in results["estimator"]} == {10}


def test_an_encrypted_scorer_serves_searches_in_other_processes(linear, rows):
    X, y = rows
    pipe = make_pipeline(StandardScaler(), linear)
    grid = {"neuralnetclassifier__lr": [0.01, 0.03]}
    scorer = make_fhe_scorer(max_rows=3, random_state=0)
    search = GridSearchCV(pipe, grid, cv=2, n_jobs=2, scoring=scorer, error_score="raise")
    assert 0 <= search.fit(pd.DataFrame(X), y).best_score_ <= 1


def test_a_searched_score_of_simulated_rows_may_be_named(linear, rows):
    search = EncryptedSearchCV(
        linear, {"lr": [0.03]}, scoring="accuracy", compile_options={"p_error": 2**-20}, cv=2
    )
    assert search.fit(*rows).best_score_ > 0.7


def test_the_rows_drawn_for_a_score_keep_their_weights(linear, rows):
    X, y = rows
    linear.fit(X, y)
    wrong = linear.predict(X) != y
    weights = np.where(wrong, 0.0, 1.0)
    scorer = make_fhe_scorer("accuracy", max_rows=20, random_state=0, execute_in_fhe="simulate")
    assert scorer(linear, X, y, sample_weight=weights) == 1


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"max_rows": 0}, "max_rows"),
        ({"scoring": "best"}, "best"),
        ({"execute_in_fhe": "simulated"}, "execute_in_fhe"),
    ],
)
def test_a_scorer_that_cannot_be_made_says_why(options, rule):
    with pytest.raises(ValueError, match=rule):
        make_fhe_scorer(**options)


# ---------------------------------------------------------------------- frames


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_frames_give_names_and_the_predictions_of_their_values(frame, linear, regressor, rows):
    X, y = rows
    named = frame({name: X[:, i] for i, name in enumerate("abcd")})
    series = pl.Series(y) if frame is pl.DataFrame else pd.Series(y)
    linear.fit(named, series)
    assert [*linear.feature_names_in_] == [*"abcd"]
    np.testing.assert_array_equal(
        linear.predict(named), NeuralNetClassifier(**LINEAR).fit(X, y).predict(X)
    )
    assert_same_encrypted(linear, linear, named)
    with pytest.raises(ValueError, match="feature names should match"):
        linear.predict(named[[*"badc"]])
    by_name = regressor.fit(named, targets(X)).predict(named)
    by_position = NeuralNetRegressor(**LINEAR).fit(X, targets(X)).predict(X)
    np.testing.assert_array_equal(by_name, by_position)


def test_an_encrypted_search_keeps_groups_apart(linear, rows):
    X, y = rows
    groups = np.arange(len(X)) // 6
    search = EncryptedSearchCV(linear, {"lr": [0.03]}, cv=GroupKFold(2))
    assert search.fit(X, y, groups=groups).best_score_ > 0.5
    with pytest.raises(ValueError, match="groups"):
        search.fit(X, y)


@pytest.mark.parametrize("scoring", ["neg_log_loss", "roc_auc_ovr"])
def test_a_few_rows_drawn_for_a_score_are_of_every_class(scoring, linear, rows):
    scorer = make_fhe_scorer(scoring, max_rows=6, random_state=1)
    assert np.isfinite(scorer(linear.fit(*rows), *rows, sample_weight=None))


def test_a_search_that_predicts_encrypted_is_scored_encrypted(linear, rows):
    search = EncryptedSearchCV(linear, {"lr": [0.03]}, cv=2).fit(*rows)
    assert make_fhe_scorer("accuracy", max_rows=3)(search, *rows) >= 0
    vote = VotingClassifier([("a", linear)]).fit(*rows)
    with pytest.raises(TypeError, match="Pipeline that ends in one"):
        make_fhe_scorer()(vote, *rows)
