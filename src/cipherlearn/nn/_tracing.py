"""Tracing of modules of Brevitas layers."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from brevitas.nn.mixin.base import QuantLayerMixin
from torch import Tensor, fx, nn
from torch.nn.utils.prune import BasePruningMethod

__all__ = ["copied", "is_leaf", "trace"]

Module = TypeVar("Module", bound=nn.Module)


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is a layer of Brevitas, or one that was made from it."""
    home = type(module).__module__
    return isinstance(module, QuantLayerMixin) or home.startswith("brevitas.")


class _Rows(nn.Module):
    """The module as a function of its first argument alone."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, X: Tensor) -> Any:
        return self.module(X)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_leaf(m) or super().is_leaf_module(m, module_qualified_name)


def trace(module: nn.Module) -> fx.GraphModule:
    """Trace what a module's forward does with rows, or raise ValueError.

    Brevitas's layers, and those of torch, are nodes of the graph.
    """
    root = _Rows(module).eval()
    try:
        graph = _Tracer().trace(root)
    except (TypeError, ValueError, RuntimeError, fx.proxy.TraceError) as error:
        raise ValueError(
            "A module's forward must be a fixed sequence of layers and functions of its first "
            "argument, which torch.fx can trace (X.shape[0] instead of len(X), no branches on "
            f"values). That of {type(module).__name__} is not: {error}"
        ) from error
    traced = fx.GraphModule(root, graph)
    traced.graph.eliminate_dead_code()
    return traced


@torch.no_grad()
def copied(module: Module) -> Module:
    """Copy a module. Weights that torch prunes are computed anew, and have no gradients."""
    for part in module.modules():
        for hook in part._forward_pre_hooks.values():
            if isinstance(hook, BasePruningMethod):
                hook(part, ())
    return copy.deepcopy(module)
