"""scikit-learn's own checks, and its meta-estimators."""

from __future__ import annotations

import numpy as np
import pytest
from cases import blobs
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from cipherlearn import NeuralNetClassifier, NeuralNetRegressor


@parametrize_with_checks(
    [NeuralNetClassifier(max_epochs=20, lr=0.03, batch_size=16), NeuralNetRegressor(max_epochs=15)]
)
def test_scikit_learn_check(estimator, check):
    check(estimator)


def test_pipeline_fits_and_scores():
    X, y = blobs()
    pipeline = make_pipeline(StandardScaler(), NeuralNetClassifier(max_epochs=30, random_state=0))
    assert pipeline.fit(X, y).score(X, y) > 0.9


@pytest.mark.filterwarnings("ignore::UserWarning")  # joblib on workers that stop
def test_grid_search_over_module_and_skorch_parameters_in_two_processes():
    X, y = blobs()
    pipeline = make_pipeline(StandardScaler(), NeuralNetClassifier(max_epochs=100, random_state=0))
    grid = {
        "neuralnetclassifier__module__n_hidden_neurons": [2, 8],
        "neuralnetclassifier__lr": [0.003, 0.01],
    }
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2, error_score="raise").fit(X, y)
    n_hidden = search.best_params_["neuralnetclassifier__module__n_hidden_neurons"]
    assert search.best_estimator_[-1].module_.linears[0].out_features == n_hidden
    assert search.best_score_ == np.max(search.cv_results_["mean_test_score"]) > 0.8


def test_cross_validation_of_a_regressor():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 3))
    y = 1000 + 50 * X[:, 0] - 20 * X[:, 1]
    scores = cross_val_score(NeuralNetRegressor(max_epochs=60, random_state=0), X, y, cv=3)
    assert scores.mean() > 0.6
