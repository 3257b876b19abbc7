"""Modules that users wrote: what they are given, and how they are stored."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cipherlearn._exceptions import AccumulatorOverflowError
from cipherlearn.lowering._foreign import lower_traced
from cipherlearn.nn._network import SparseQuantNeuralNetImpl

__all__ = [
    "apply_module",
    "check_module",
    "is_own",
    "make_module",
    "module_state",
    "restore_module",
]


def is_own(module: Any) -> bool:
    """Whether the parameter ``module`` of a net makes our own network."""
    module = module.func if isinstance(module, functools.partial) else module
    return isinstance(module, type) and issubclass(module, SparseQuantNeuralNetImpl)


def make_module(module: Any, given: Mapping[str, Any], more: Mapping[str, Any]) -> nn.Module:
    """Make the module of a net.

    Parameters
    ----------
    module : type, callable or torch.nn.Module
        An instance is copied.
    given : dict
        Arguments that the net has for any module: its own parameters and the shape of the data.
        Only those that the module names are passed.
    more : dict
        Arguments that the user named besides.
    """
    if isinstance(module, nn.Module):
        if more:
            raise ValueError(
                "A module that is an instance already takes no arguments. Got "
                f"{', '.join(f'module__{name}' for name in more)}. Pass the class as module."
            )
        return copy.deepcopy(module)
    names = inspect.signature(module).parameters
    made: nn.Module = module(
        **{name: value for name, value in given.items() if is_own(module) or name in names}, **more
    )
    return made


def check_module(module: nn.Module, n_features: int) -> None:
    """Raise ValueError before training if a module has no integer form, whatever its weights."""
    try:
        lower_traced(module, n_features)
    except AccumulatorOverflowError:
        # Training, or pruning, may narrow it.
        return


def apply_module(module: nn.Module, X: Any, **named: Any) -> Tensor:
    """Compute outputs of shape (n_rows, n_outputs) with a module that takes rows.

    Parameters
    ----------
    module : torch.nn.Module
    X : Tensor or dict of Tensor
        Rows, or rows by the name "X" beside values that only some modules take.
    **named
        As in such a dict.
    """
    if isinstance(X, Mapping):
        named = {**{name: value for name, value in X.items() if name != "X"}, **named}
        X = X["X"]
    taken = inspect.signature(module.forward).parameters
    made = module(X.float(), **{name: v for name, v in named.items() if name in taken})
    outputs: Tensor = getattr(made, "value", made)
    return outputs[:, None] if outputs.ndim == 1 else outputs


def module_state(module: nn.Module) -> dict[str, Any]:
    """Describe a trained module by arrays, and by its arguments if it is our own."""
    if isinstance(module, SparseQuantNeuralNetImpl):
        return module.plain_state()
    return {"arrays": {name: t.cpu().numpy() for name, t in module.state_dict().items()}}


def restore_module(module: nn.Module, state: Mapping[str, Any]) -> nn.Module:
    """Give a new module of the same class what :func:`module_state` described."""
    if isinstance(module, SparseQuantNeuralNetImpl):
        return type(module).from_plain_state(dict(state))
    module.load_state_dict({name: torch.tensor(a) for name, a in state["arrays"].items()})
    return module.eval()
