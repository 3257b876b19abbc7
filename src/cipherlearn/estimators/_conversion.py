from __future__ import annotations
import numpy as np
from cipherlearn.estimators._classifier import NeuralNetClassifier
from cipherlearn.estimators._regressor import NeuralNetRegressor
from cipherlearn.training._float_networks import FloatNetwork, mlp_module
from sklearn.base import is_classifier

def from_sklearn(mlp, X, y=None, **parameters):
    y = mlp.predict(X) if y is None else y
    if is_classifier(mlp):
        t = FloatNetwork(mlp_module(mlp), range(len(mlp.classes_)))
        net = NeuralNetClassifier(**parameters)
        return net._fit(X, y, None, cold=True, classes=mlp.classes_, teacher=t)
    return NeuralNetRegressor(**parameters)._fit(X, y, None, cold=True, teacher=FloatNetwork(mlp_module(mlp)))
