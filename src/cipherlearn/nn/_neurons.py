"""Importance and removal of hidden neurons. Each one less saves a bootstrap per encrypted row."""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from cipherlearn.nn._network import SparseQuantNeuralNetImpl

__all__ = ["choose_neurons", "neuron_importance", "without_neurons"]

# "auto" removes neurons that together carry at most this part of the outputs' variance.
_NEGLIGIBLE = 0.01


@torch.no_grad()
def neuron_importance(module: SparseQuantNeuralNetImpl, X: Tensor) -> list[Tensor]:
    """Measure how much the outputs change when a neuron always gives its mean code.

    Parameters
    ----------
    module : SparseQuantNeuralNetImpl
        A quantized module.
    X : torch.Tensor of shape (n_samples, input_dim)
        Rows to average over.

    Returns
    -------
    list of torch.Tensor of shape (n_neurons,)
        For each hidden layer, the mean squared change of the outputs as a part of their variance.
    """
    outputs, inputs = module(X), module.encode(X)[-1]
    variance = outputs.var(dim=0, unbiased=False).sum().clamp_min(1e-12)
    importance = []
    for i, codes in enumerate(_hidden_codes(module, X)):
        changes = []
        for j, mean in enumerate(codes.mean(dim=0)):
            ablated = codes.clone()
            ablated[:, j] = mean
            change = module.from_codes(ablated, inputs, i + 1) - outputs
            changes.append(change.square().mean(dim=0).sum() / variance)
        importance.append(torch.stack(changes))
    return importance


def choose_neurons(importance: Sequence[Tensor], share: float | str) -> list[Tensor]:
    """Choose the neurons of each hidden layer to keep: at least one.

    Parameters
    ----------
    importance : sequence of torch.Tensor
        As :func:`neuron_importance` gives it.
    share : float or "auto"
        Part of each layer to remove, besides neurons that change nothing, or "auto" for all that
        together hardly change the outputs.

    Returns
    -------
    list of torch.Tensor
        Ascending indices for each layer.

    Raises
    ------
    ValueError
        If ``share`` is neither "auto" nor a number of at least 0 and below 1.
    """
    if share != "auto" and not (isinstance(share, numbers.Real) and 0 <= share < 1):
        raise ValueError(
            'n_prune_neurons_percentage must be "auto", or the part of each hidden layer to '
            f"remove, at least 0 and below 1. Got {share!r}. For 25 % pass 0.25."
        )
    kept = []
    for values in importance:
        ascending = values.argsort()
        if share == "auto":
            n_removed = int((values[ascending].cumsum(0) <= _NEGLIGIBLE).sum())
        else:
            n_dead = int((values == 0).sum())
            n_removed = n_dead + int(share * (len(values) - n_dead))
        n_removed = min(n_removed, len(values) - 1)
        kept.append(ascending[n_removed:].sort().values)
    return kept


@torch.no_grad()
def without_neurons(
    module: SparseQuantNeuralNetImpl, kept: Sequence[Tensor], X: Tensor
) -> SparseQuantNeuralNetImpl:
    """Copy a quantized module without some of its hidden neurons.

    What a removed neuron adds to the next layer is replaced by its mean over ``X``.

    Parameters
    ----------
    module : SparseQuantNeuralNetImpl
    kept : sequence of torch.Tensor
        Indices of the neurons to keep, for each hidden layer.
    X : torch.Tensor of shape (n_samples, input_dim)
        Rows to average over.

    Returns
    -------
    SparseQuantNeuralNetImpl
    """
    smaller = type(module)(
        **{**module._arguments, "n_hidden_neurons": [len(indices) for indices in kept]}
    ).to(X.device)
    tensors = {name: value.clone() for name, value in module.state_dict().items()}
    for i, (indices, codes) in enumerate(zip(kept, _hidden_codes(module, X), strict=True)):
        for name in ("weight", "mask", "bias", "log_gain"):
            tensors[f"linears.{i}.{name}"] = tensors[f"linears.{i}.{name}"][indices]
        for name in ("offset", "log_step"):
            tensors[f"quantizers.{i}.{name}"] = tensors[f"quantizers.{i}.{name}"][indices]
        for name in ("first", "spacing", "values"):
            tensors[f"activations.{i}.{name}"] = tensors[f"activations.{i}.{name}"][indices]
        reader, name = module.linears[i + 1], f"linears.{i + 1}"
        removed = torch.ones(codes.shape[1], dtype=torch.bool, device=X.device)
        removed[indices] = False
        constant = reader.effective_weight()[:, removed] @ codes.mean(dim=0)[removed]
        tensors[f"{name}.bias"] = tensors[f"{name}.bias"] + reader.log_gain.exp() * constant
        for leaf in ("weight", "mask"):
            tensors[f"{name}.{leaf}"] = tensors[f"{name}.{leaf}"][:, indices]
        tensors[f"{name}.input_max"] = tensors[f"{name}.input_max"][indices]
    smaller.load_state_dict(tensors)
    return smaller.train(module.training)


def _hidden_codes(module: SparseQuantNeuralNetImpl, X: Tensor) -> Iterator[Tensor]:
    codes = module.encode(X)[0]
    for block in module.blocks:
        codes = block(codes)
        yield codes
