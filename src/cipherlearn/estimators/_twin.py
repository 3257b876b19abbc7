"""A float network of the same shape, to see what quantization costs."""

from __future__ import annotations

from numbers import Integral

import torch
from sklearn.base import BaseEstimator, is_classifier
from sklearn.compose import TransformedTargetRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cipherlearn.estimators._modules import is_own
from cipherlearn.training._schedule import choose_neurons

__all__ = ["float_twin"]

_ACTIVATIONS = {
    torch.nn.ReLU: "relu",
    torch.nn.Tanh: "tanh",
    torch.nn.Sigmoid: "logistic",
    torch.nn.Identity: "identity",
}


def float_twin(estimator: BaseEstimator) -> BaseEstimator:
    """Make the unfitted scikit-learn MLP that has the topology of ``estimator``.

    Parameters
    ----------
    estimator : NeuralNetClassifier or NeuralNetRegressor

    Returns
    -------
    Pipeline or TransformedTargetRegressor
        Standardization and an MLP in float. For regression it scales the targets, too.

    Raises
    ------
    ValueError
        If scikit-learn's MLP lacks the activation function.
    """
    if not is_own(estimator.module):
        raise ValueError(
            f"A float twin has the topology of our own network. Got module={estimator.module!r}. "
            "Train a float module of your own with skorch."
        )
    activation = estimator.module__activation_function
    if activation not in _ACTIVATIONS:
        known = ", ".join(f"torch.nn.{cls.__name__}" for cls in _ACTIVATIONS)
        raise ValueError(
            "A float twin needs an activation function that scikit-learn's MLP has: "
            f"{known}. Got {activation!r}."
        )
    n_rows = getattr(estimator, "n_training_rows_", 0)
    width = choose_neurons(estimator.module__n_hidden_neurons, n_rows)
    n_hidden = estimator.module__n_layers - 1
    network = (MLPClassifier if is_classifier(estimator) else MLPRegressor)(
        hidden_layer_sizes=(width,) * n_hidden if isinstance(width, Integral) else tuple(width),
        activation=_ACTIVATIONS[activation],
        max_iter=1000,
        random_state=estimator.random_state,
    )
    pipeline = make_pipeline(StandardScaler(), network)
    if is_classifier(estimator):
        return pipeline
    return TransformedTargetRegressor(pipeline, transformer=StandardScaler())
