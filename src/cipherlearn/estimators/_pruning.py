"""Estimators with fewer hidden neurons."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any, TypeVar

import torch

from cipherlearn._features import dense_rows
from cipherlearn._samples import sample_rows
from cipherlearn.nn._filters import filter_importance, hidden_layers, remove_filters
from cipherlearn.nn._network import SparseQuantNeuralNetImpl
from cipherlearn.nn._neurons import choose_neurons, neuron_importance, without_neurons
from cipherlearn.training._threads import one_thread

__all__ = ["gentle_steps", "with_fewer_neurons"]

# Rows on which the importance of a neuron is measured, and the factor on the learning rate.
_IMPORTANCE_ROWS, _GENTLE = 2000, 0.3

Net = TypeVar("Net", bound=Any)


def with_fewer_neurons(net: Net, X: Any, percentage: float | str) -> Net:
    """Copy a fitted estimator without some of its hidden neurons, not yet fine-tuned.

    Parameters
    ----------
    net : NeuralNetClassifier or NeuralNetRegressor
        The estimator, which is not changed.
    X : ndarray or sparse matrix of shape (n_samples, n_features)
        Validated features.
    percentage : float or "auto"
        Part of each hidden layer to remove.
    """
    if not isinstance(net.module_, SparseQuantNeuralNetImpl):
        return _with_fewer_filters(net, X, percentage)
    sample = dense_rows(X, sample_rows(X.shape[0], _IMPORTANCE_ROWS))
    rows = torch.as_tensor(sample, device=net.device)
    smaller = copy.deepcopy(net)
    smaller._forget_result()
    module = net.module_.eval()
    with one_thread():
        importance = neuron_importance(module, rows)
    kept = choose_neurons(importance, percentage)
    if kept:
        smaller.set_params(module__n_hidden_neurons=[len(indices) for indices in kept])
    smaller.module_ = without_neurons(module, kept, rows)
    smaller.initialize_optimizer()
    return smaller


def _with_fewer_filters(net: Net, X: Any, percentage: float | str) -> Net:
    """Copy an estimator of a module that users wrote, in which some neurons are constant."""
    sample = dense_rows(X, sample_rows(X.shape[0], _IMPORTANCE_ROWS))
    rows = torch.as_tensor(sample, dtype=torch.float32, device=net.device)
    smaller = copy.deepcopy(net)
    smaller._forget_result()
    module = smaller.module_.eval()
    layers = hidden_layers(module)
    with one_thread():
        kept = choose_neurons(filter_importance(module, layers, rows), percentage)
    removed = {
        name: sorted({*range(len(layer.weight))}.difference(indices.tolist()))
        for (name, layer), indices in zip(layers.items(), kept, strict=True)
    }
    remove_filters(module, removed, rows)
    smaller.removed_neurons_ = removed
    smaller.initialize_optimizer()
    return smaller


@contextlib.contextmanager
def gentle_steps(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Train from weights that are good already, without losing them in the first steps."""
    groups = optimizer.param_groups
    for group in groups:
        group["lr"] *= _GENTLE
    yield
    for group in groups:
        group["lr"] /= _GENTLE
