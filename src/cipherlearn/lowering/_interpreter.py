"""Walk through a traced forward: every operation on a tensor becomes one on integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from brevitas.nn import QuantConv1d, QuantConv2d, QuantEltwiseAdd, QuantLinear
from brevitas.nn.quant_layer import QuantNonLinearActLayer
from torch import Tensor, fx, nn

from cipherlearn.lowering._arithmetic import Arithmetic, mixed_units
from cipherlearn.lowering._assembly import Assembly
from cipherlearn.lowering._operations import (
    ADDITIONS,
    ELEMENT_WISE,
    ELEMENT_WISE_LAYERS,
    MOVES,
    SKIPPED_LAYERS,
    SUBTRACTIONS,
    unsupported_layer,
    unsupported_operation,
)
from cipherlearn.lowering._pooling import pool_of
from cipherlearn.lowering._signals import BATCH, Signal, Total
from cipherlearn.lowering._weighted import normalized, weighted_sums

__all__ = ["Reader"]

_BREVITAS = (QuantLinear, QuantConv1d, QuantConv2d, QuantEltwiseAdd)


class Reader:
    """Interpreter of a module's graph on tensors of integers.

    Parameters
    ----------
    graph : torch.fx.GraphModule
        Of a module in eval mode, whose one input are the features.
    assembly : Assembly
        Where nodes go.
    """

    def __init__(self, graph: fx.GraphModule, assembly: Assembly) -> None:
        self._graph = graph
        self.arithmetic = Arithmetic(assembly)
        self._node = ""

    def run(self, features: Signal) -> Any:
        """Lower every node, and return what the module returns."""
        values: dict[fx.Node, Any] = {}
        for node in self._graph.graph.nodes:
            # For messages.
            self._node = node.name
            args = fx.node.map_arg(node.args, values.__getitem__)
            kwargs = fx.node.map_arg(node.kwargs, values.__getitem__)
            if node.op == "placeholder":
                values[node] = features
            elif node.op == "output":
                return args[0]
            elif node.op == "get_attr":
                values[node] = self._attribute(node.target)
            else:
                values[node] = getattr(self, node.op)(node.target, args, kwargs)
        raise AssertionError("A graph ends in an output.")

    def _attribute(self, target: str) -> Any:
        """Return the module or tensor of this path."""
        path, _, name = target.rpartition(".")
        return getattr(self._graph.get_submodule(path), name)

    # ------------------------------------------------------------------ layers

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Lower a layer."""
        layer = self._graph.get_submodule(target)
        name = target.removeprefix("module.")
        signals = _signals((args, kwargs))
        if not signals:
            return layer(*args, **kwargs)
        if any(isinstance(signal, Total) for signal in signals):
            raise mixed_units(signals)
        is_own = any(
            isinstance(layer, kind) and type(layer).forward is kind.forward for kind in _BREVITAS
        )
        x = signals[0]
        if is_own and isinstance(layer, QuantEltwiseAdd):
            a, b = (self._input(layer, signal, name) for signal in signals)
            return self._output(layer, self.arithmetic.add(a, b, name), name)
        if is_own:
            made = weighted_sums(self.arithmetic, layer, self._input(layer, x, name), name)
            return self._output(layer, made, name)
        if isinstance(layer, QuantNonLinearActLayer):
            return self._activate(layer, x, name)
        if isinstance(layer, SKIPPED_LAYERS):
            return x
        if isinstance(layer, nn.Flatten | nn.Unflatten):
            return x.moved(layer, name)
        if type(layer) in (nn.BatchNorm1d, nn.BatchNorm2d):
            return normalized(layer, x, name)
        if type(layer) in ELEMENT_WISE_LAYERS:
            return x.mapped(layer, name)
        pool = pool_of(layer)
        if pool is not None:
            return pool(self.arithmetic, x, name)
        raise unsupported_layer(layer, name)

    def _input(self, layer: Any, x: Signal, name: str) -> Signal:
        if layer.input_quant.is_quant_enabled:
            return self.arithmetic.quantize(x, layer.input_quant, f"{name}.input_quant")
        return x

    def _output(self, layer: Any, x: Signal | Total, name: str) -> Signal | Total:
        if layer.output_quant.is_quant_enabled:
            return self.arithmetic.quantize(x, layer.output_quant, f"{name}.output_quant")
        return x

    def _activate(self, layer: Any, x: Signal, name: str) -> Signal:
        if layer.input_quant.is_quant_enabled:
            x = self.arithmetic.quantize(x, layer.input_quant, f"{name}.input_quant")
        if not layer.act_quant.is_quant_enabled:
            return x.mapped(lambda values: layer.act_quant(values), name)
        return self.arithmetic.quantize(x, layer.act_quant, name)

    def call_method(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Lower a method of a tensor."""
        if not _signals((args, kwargs)):
            return getattr(args[0], target)(*args[1:], **kwargs)

        def function(x: Tensor, *others: Any, **named: Any) -> Any:
            return getattr(x, target)(*others, **named)

        return self._call(function, target, args, kwargs)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Lower a function."""
        if not _signals((args, kwargs)):
            return target(*args, **kwargs)
        return self._call(target, target.__name__, args, kwargs)

    def _call(self, function: Callable, target: str, args: tuple, kwargs: dict) -> Any:
        signals, name = _signals((args, kwargs)), target.rstrip("_")
        x = signals[0]
        if name in ADDITIONS | SUBTRACTIONS and len(signals) == 2 and not kwargs:
            a, b = signals
            return self.arithmetic.add(
                a,
                self.arithmetic.negative(b, self._node) if name in SUBTRACTIONS else b,
                self._node,
            )
        if any(isinstance(signal, Total) for signal in signals):
            raise mixed_units(signals)
        if name == "getattr":
            return _attribute(x, args[1], self._node)
        if name in ("size", "dim", "ndimension"):
            return getattr(torch.empty(BATCH, *x.shape, device="meta"), name)(*args[1:], **kwargs)
        if name in ("contiguous", "clone", "detach", "float", "dropout"):
            return x
        if name in ("cat", "concat"):
            dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
            return self.arithmetic.concatenate(signals, dim, self._node)
        if len(signals) == 1 and name in MOVES:
            moved = lambda rows: function(*_put(args, x, rows), **_put(kwargs, x, rows))  # noqa: E731
            return x.moved(moved, self._node)
        if len(signals) == 1 and name in ELEMENT_WISE | ADDITIONS | SUBTRACTIONS:
            return self._element_wise(function, name, args, kwargs, x)
        pool = pool_of(name, args[1:], kwargs) if args and args[0] is x else None
        if pool is not None:
            return pool(self.arithmetic, x, self._node)
        raise unsupported_operation(target, self._node)

    def _element_wise(self, function: Callable, name: str, args: tuple, kwargs: dict, x: Signal):
        def applied(values: Tensor) -> Tensor:
            return function(*_put(args, x, values), **_put(kwargs, x, values))

        made = applied(torch.zeros(1, *x.shape))
        affine = None
        if name in {
            *ADDITIONS,
            *SUBTRACTIONS,
            "mul",
            "multiply",
            "truediv",
            "div",
            "divide",
            "neg",
        }:
            zero = applied(torch.zeros(1, *x.shape, dtype=torch.float64))
            one = applied(torch.ones(1, *x.shape, dtype=torch.float64))
            is_affine = name not in ("truediv", "div", "divide") or args[0] is x
            if is_affine and made.shape == (1, *x.shape):
                affine = ((one - zero)[0].numpy(), zero[0].numpy())
        return x.mapped(applied, self._node, affine)


def _signals(arguments: Any) -> list[Any]:
    """List the tensors among arguments, in order."""
    found: list[Any] = []
    if isinstance(arguments, Signal | Total):
        return [arguments]
    if isinstance(arguments, tuple | list):
        for argument in arguments:
            found += _signals(argument)
    if isinstance(arguments, dict):
        found += _signals(list(arguments.values()))
    return found


def _put(arguments: Any, x: Signal, values: Tensor) -> Any:
    """Replace a tensor among arguments by its values."""
    if arguments is x:
        return values
    if isinstance(arguments, tuple | list):
        return type(arguments)(_put(argument, x, values) for argument in arguments)
    if isinstance(arguments, dict):
        return {key: _put(argument, x, values) for key, argument in arguments.items()}
    return arguments


def _attribute(x: Signal, name: str, node: str) -> Any:
    if name == "shape":
        return torch.Size((BATCH, *x.shape))
    if name == "ndim":
        return 1 + len(x.shape)
    if name in ("value", "tensor"):
        return x
    raise unsupported_operation(f"the attribute {name} of a tensor", node)
