"""Walk through a traced forward: every operation on a tensor becomes one on integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from brevitas.nn import QuantCat, QuantConv1d, QuantConv2d, QuantEltwiseAdd, QuantLinear
from brevitas.nn.quant_layer import QuantNonLinearActLayer
from scipy.sparse import csr_array, kron
from torch import Tensor, fx, nn

from cipherlearn.lowering._assembly import Assembly
from cipherlearn.lowering._matrices import convolution, padding_of, windows
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
from cipherlearn.lowering._quantizers import QuantizerOf, integer_weights, quantized_bias
from cipherlearn.lowering._signals import BATCH, Columns, Signal, Sums, Total, identity, joined
from cipherlearn.lowering._thresholds import find_thresholds
from cipherlearn.program._values import FloatArray, IntArray

__all__ = ["Reader", "is_leaf"]

_BREVITAS = (QuantLinear, QuantConv1d, QuantConv2d, QuantEltwiseAdd, QuantCat)
_NO_QUANTIZER = "Put a QuantIdentity, QuantReLU or another quantizer between them."


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is a layer of Brevitas, or one that was made from it."""
    home = type(module).__module__
    return isinstance(module, (*_BREVITAS, QuantNonLinearActLayer)) or home.startswith("brevitas.")


class Reader:
    """Interpreter of a module's graph on tensors of integers.

    Parameters
    ----------
    graph : torch.fx.GraphModule
        Of a module in eval mode, whose one input are the features.
    assembly : Assembly
        Where nodes go.

    Attributes
    ----------
    codes : dict of Sums
        Integers of each quantizer, by the name of its layer.
    """

    def __init__(self, graph: fx.GraphModule, assembly: Assembly) -> None:
        self._graph = graph
        self.assembly = assembly
        self.codes: dict[str, Sums] = {}
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
            raise _mixed(signals)
        is_own = any(
            isinstance(layer, kind) and type(layer).forward is kind.forward for kind in _BREVITAS
        )
        x = signals[0]
        if is_own and isinstance(layer, QuantEltwiseAdd):
            a, b = (self._input(layer, signal, name) for signal in signals)
            return self._output(layer, self._add(a, b, name), name)
        if is_own and isinstance(layer, QuantCat):
            parts = [self._input(layer, signal, name) for signal in signals]
            dim = kwargs.get("dim", args[1] if len(args) > 1 else 1)
            return self._output(layer, self._concatenate(parts, dim, name), name)
        if is_own:
            made = self._weighted(layer, self._input(layer, x, name), name)
            return self._output(layer, made, name)
        if isinstance(layer, QuantNonLinearActLayer):
            return self._activate(layer, x, name)
        if isinstance(layer, SKIPPED_LAYERS):
            return x
        if isinstance(layer, nn.Flatten | nn.Unflatten):
            return x.moved(layer, name)
        if type(layer) in (nn.BatchNorm1d, nn.BatchNorm2d):
            return self._normalize(layer, x, name)
        if type(layer) in ELEMENT_WISE_LAYERS:
            return x.mapped(layer, name)
        pool = pool_of(layer)
        if pool is not None:
            return pool(self, x, name)
        raise unsupported_layer(layer, name)

    def _input(self, layer: Any, x: Signal, name: str) -> Signal:
        if layer.input_quant.is_quant_enabled:
            return self.quantize(x, layer.input_quant, f"{name}.input_quant")
        return x

    def _output(self, layer: Any, x: Signal | Total, name: str) -> Signal | Total:
        if layer.output_quant.is_quant_enabled:
            return self.quantize(x, layer.output_quant, f"{name}.output_quant")
        return x

    def _activate(self, layer: Any, x: Signal, name: str) -> Signal:
        if layer.input_quant.is_quant_enabled:
            x = self.quantize(x, layer.input_quant, f"{name}.input_quant")
        if not layer.act_quant.is_quant_enabled:
            return x.mapped(lambda values: layer.act_quant(values), name)
        return self.quantize(x, layer.act_quant, name)

    def _normalize(self, layer: Any, x: Signal, name: str) -> Signal:
        if layer.running_mean is None:
            raise ValueError(
                f"Batch normalisation needs running statistics. {name} has none. Make it with "
                "track_running_stats=True."
            )
        gain = 1 / (layer.running_var.double() + layer.eps).sqrt()
        bias = -layer.running_mean.double() * gain
        if layer.affine:
            gain = gain * layer.weight.double()
            bias = bias * layer.weight.double() + layer.bias.double()
        shape = (-1, *[1] * (len(x.shape) - 1))
        affine = (gain.reshape(shape).numpy(), bias.reshape(shape).numpy())
        return x.mapped(layer, name, affine)

    def _weighted(self, layer: Any, x: Signal, name: str) -> Signal:
        weights, scale = integer_weights(layer, name)
        if isinstance(layer, QuantLinear):
            n_inputs, n_outputs = layer.in_features, layer.out_features
            _check_shape(x, name, (*x.shape[:-1], n_inputs))
            repeats = int(np.prod(x.shape[:-1]))
            matrix = csr_array(kron(identity(repeats), csr_array(weights), format="csr"))
            shape = (*x.shape[:-1], n_outputs)
            place: tuple[int, ...] = (n_outputs,)
        else:
            n_dimensions = len(layer.kernel_size)
            _check_shape(x, name, (layer.in_channels, *x.shape[1:]), n_dimensions + 1)
            read = windows(
                x.shape,
                layer.kernel_size,
                layer.stride,
                padding_of(layer, x.shape[1:], name),
                layer.dilation,
            )
            n_elements = int(np.prod(x.shape))
            matrix, shape = convolution(weights, read, n_elements, layer.groups)
            place = (len(scale), *[1] * n_dimensions)
        per_output = np.broadcast_to(scale.reshape(place), shape).reshape(-1)
        made = self.combine(x, matrix, per_output, shape, name)
        if layer.bias is None:
            return made
        assert isinstance(x.source, Sums)
        bias, is_quantized = quantized_bias(layer, x.shape, float(x.source.scale[0]))
        bias = np.broadcast_to(bias.reshape(place), shape)
        sums = made.source
        assert isinstance(sums, Sums)
        steps = np.rint(bias.reshape(-1) / sums.scale)
        if (
            made.is_exact
            and is_quantized
            and (abs(bias.reshape(-1) / sums.scale - steps) < 0.01).all()
        ):
            constant = sums.constant + steps.astype(np.int64)
            return Signal.of(Sums(sums.weights, constant, sums.scale), shape, name)
        return _plus(made, bias, name)

    def combine(
        self, x: Signal, matrix: csr_array, scale: FloatArray, shape: tuple[int, ...], name: str
    ) -> Signal:
        """Multiply a tensor by an integer matrix and by a scale for each result."""
        sums, bias = self.affine(x, name)
        remedy = f"Put a quantizer of one scale before {name}."
        made = sums.times(matrix, f"Layer {name}", remedy)
        made = Sums(made.weights, made.constant, made.scale * scale)
        signal = Signal.of(made, shape, name)
        if not bias.any():
            return signal
        return _plus(signal, (scale * (matrix @ bias)).reshape(shape), name)

    def affine(self, x: Signal, name: str) -> tuple[Sums, FloatArray]:
        """Return a tensor as integers and a bias, or raise ValueError if it is none."""
        if isinstance(x.source, Columns):
            raise ValueError(
                f"Features must be quantized first. They reach {name} as they are. Begin with a "
                "QuantIdentity, or give the first layer an input_quant."
            )
        if x.gain is None or x.bias is None:
            raise ValueError(
                f"Sums need integers. {name} reads what an activation makes of {x.owner}, which "
                f"is no integer. {_NO_QUANTIZER}"
            )
        sums = x.source.take(x.order)
        return Sums(sums.weights, sums.constant, sums.scale * x.gain), x.bias

    def quantize(self, x: Signal | Total, proxy: Any, name: str) -> Signal:
        """Turn a tensor into the integers of a quantizer."""
        if isinstance(x, Total):
            raise _mixed([x])
        quantizer, source = QuantizerOf(proxy, name), x.source
        if isinstance(source, Columns):
            sums = self._encode(x, source, quantizer)
        else:
            scale = source.scale

            def table(integers: IntArray) -> tuple[IntArray, FloatArray]:
                values = (integers * scale).astype(np.float32)
                return quantizer(x.compute(torch.from_numpy(values)))

            sums = self.assembly.look_up(source, table, x.owner, x.shape, x.order)
        self.codes[name] = sums
        return Signal.of(sums, x.shape, name)

    def _encode(self, x: Signal, source: Columns, quantizer: QuantizerOf) -> Sums:
        """Find the thresholds of the client."""
        if len(np.unique(x.order)) < len(x.order):
            raise ValueError(
                f"Features must be quantized before they are repeated. {quantizer.name} does not."
            )

        def quantize(values: np.ndarray) -> IntArray:
            given = torch.zeros(len(values), len(source))
            given[:, torch.from_numpy(x.order)] = torch.from_numpy(values)
            return quantizer(x.compute(given))[0]

        n = len(x.order)
        _, scale = quantizer(x.compute(torch.zeros(1, len(source))))
        thresholds, first = find_thresholds(quantize, n, quantizer.name)
        return self.assembly.add_input(source.feature[x.order], thresholds, first, scale)

    # ------------------------------------------------------------------ functions

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
            return self._add(a, self._negative(b) if name in SUBTRACTIONS else b, self._node)
        if any(isinstance(signal, Total) for signal in signals):
            raise _mixed(signals)
        if name == "getattr":
            return _attribute(x, args[1], self._node)
        if name in ("size", "dim", "ndimension"):
            return getattr(torch.empty(BATCH, *x.shape, device="meta"), name)(*args[1:], **kwargs)
        if name in ("contiguous", "clone", "detach", "float", "dropout"):
            return x
        if name in ("cat", "concat"):
            dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
            return self._concatenate(signals, dim, self._node)
        if len(signals) == 1 and name in MOVES:
            moved = lambda rows: function(*_put(args, x, rows), **_put(kwargs, x, rows))  # noqa: E731
            return x.moved(moved, self._node)
        if len(signals) == 1 and name in ELEMENT_WISE | ADDITIONS | SUBTRACTIONS:
            return self._element_wise(function, name, args, kwargs, x)
        pool = pool_of(name, args[1:], kwargs) if args and args[0] is x else None
        if pool is not None:
            return pool(self, x, self._node)
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

    def _negative(self, x: Signal | Total) -> Signal | Total:
        if isinstance(x, Total):
            terms = tuple(self._negative(term) for term in x.terms)
            return Total(terms, x.shape, x.owner)  # type: ignore[arg-type]
        one = np.ones(())
        return x.mapped(lambda values: -values, self._node, (-one, 0 * one))

    def _add(self, a: Signal | Total, b: Signal | Total, name: str) -> Signal | Total:
        if a.shape != b.shape:
            raise ValueError(f"Tensors that are added must have one shape. {name} does not.")
        if isinstance(a, Signal) and isinstance(b, Signal):
            (left, bias), (right, other) = self.affine(a, name), self.affine(b, name)
            try:
                sums = left.plus(right, name)
            except ValueError:
                return Total((a, b), a.shape, name)
            signal = Signal.of(sums, a.shape, name)
            bias = bias + other
            return _plus(signal, bias.reshape(a.shape), name) if bias.any() else signal
        terms = [t for part in (a, b) for t in (part.terms if isinstance(part, Total) else (part,))]
        return Total(tuple(terms), a.shape, name)

    def _concatenate(self, signals: list[Signal], dim: int, name: str) -> Signal:
        if dim % (len(signals[0].shape) + 1) == 0:
            raise ValueError(f"Rows must stay apart. {name} concatenates rows: use dim=1.")
        return joined(signals, dim, name)


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


def _plus(x: Signal, bias: Any, name: str) -> Signal:
    """Add a constant, as float32."""
    term = torch.from_numpy(np.ascontiguousarray(bias, dtype=np.float32))
    return x.mapped(lambda values: values + term, name, (np.ones(()), bias))


def _attribute(x: Signal, name: str, node: str) -> Any:
    if name == "shape":
        return torch.Size((BATCH, *x.shape))
    if name == "ndim":
        return 1 + len(x.shape)
    if name in ("value", "tensor"):
        return x
    raise unsupported_operation(f"the attribute {name} of a tensor", node)


def _check_shape(x: Signal, name: str, expected: tuple[int, ...], n: int | None = None) -> None:
    if x.shape != expected or (n is not None and len(x.shape) != n):
        raise ValueError(
            f"Shapes must fit. {name} reads {tuple(x.shape)} for each row. Reshape before it."
        )


def _mixed(signals: list[Any]) -> ValueError:
    total = next(signal for signal in signals if isinstance(signal, Total))
    return ValueError(
        f"Only an output can add sums of different scales, as {total.owner} does. Quantize both "
        "with one and the same QuantIdentity before they are added, or with quantizers whose "
        "scales are powers of two."
    )
