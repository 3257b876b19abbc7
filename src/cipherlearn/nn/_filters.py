"""Budgets of neurons and filters of modules that users wrote, and pruning to them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from brevitas.nn import QuantConv1d, QuantConv2d, QuantLinear
from torch import Tensor, fx, nn

from cipherlearn.nn._budget import fan_in, neuron_budget
from cipherlearn.nn._tracing import trace

__all__ = [
    "FilterPruner",
    "check_filters",
    "filter_budgets",
    "filter_importance",
    "hidden_layers",
    "keep_largest_weights",
    "quantized_layers",
    "remove_filters",
    "within_budgets",
]

_KINDS = (QuantLinear, QuantConv1d, QuantConv2d)
_POOLS = (nn.AvgPool1d, nn.AvgPool2d)
_PASSING = (nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout, nn.MaxPool1d, nn.MaxPool2d)


def quantized_layers(module: nn.Module) -> dict[str, Any]:
    """Return the layers with quantized weights, by name."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, _KINDS) and layer.weight_quant.is_quant_enabled
    }


def filter_budgets(module: nn.Module, n_accum_bits: int, multiplier: float = 1.0) -> dict[str, int]:
    """Return the largest number of non-zero weights of a neuron or filter of each layer.

    Parameters
    ----------
    module : torch.nn.Module
    n_accum_bits : int
        Bits of an accumulator.
    multiplier : float, default=1.0
        Factor on Ω.

    Returns
    -------
    dict of int
        By the name of each layer with quantized weights.

    Raises
    ------
    ValueError
        If a budget is 0, or the bits of a layer's inputs are not known.

    Examples
    --------
    >>> import torch
    >>> from brevitas.nn import QuantIdentity, QuantLinear
    >>> from cipherlearn.nn._filters import filter_budgets
    >>> layers = QuantIdentity(bit_width=2), QuantLinear(40, 2, bias=False, weight_bit_width=2)
    >>> filter_budgets(torch.nn.Sequential(*layers), n_accum_bits=8)
    {'1': 28}
    """
    traced = trace(module)
    inputs = {
        str(node.target).removeprefix("module."): node.args[0]
        for node in traced.graph.nodes
        if node.op == "call_module"
    }
    budgets = {}
    for name, layer in quantized_layers(module).items():
        if name not in inputs:
            continue
        bits = _bits_of(layer.input_quant)
        if bits is None:
            bits = _bits(traced, inputs[name])
        if bits is None:
            raise ValueError(
                f"A budget needs the bits of a layer's inputs. Those of {name} are not quantized. "
                "Put a QuantIdentity or QuantReLU before it."
            )
        weight_bits = round(float(layer.weight_quant.bit_width()))
        budgets[name] = neuron_budget(n_accum_bits, weight_bits, bits, multiplier)
    return budgets


def _bits_of(proxy: Any) -> int | None:
    return round(float(proxy.bit_width())) if proxy.is_quant_enabled else None


def _bits(traced: fx.GraphModule, value: Any) -> int | None:
    """Return the bits of the integers that a node of the graph gives, if they are known."""
    if not isinstance(value, fx.Node) or value.op == "placeholder":
        return None
    found = [_bits(traced, node) for node in value.all_input_nodes]
    read = [bits for bits in found if bits is not None]
    more = 0
    if value.op == "call_module":
        layer = traced.get_submodule(str(value.target))
        for name in ("act_quant", "output_quant"):
            bits = _bits_of(getattr(layer, name)) if hasattr(layer, name) else None
            if bits is not None:
                return bits
        if not isinstance(layer, (*_POOLS, *_PASSING)):
            return None
        if isinstance(layer, _POOLS):
            kernel = layer.kernel_size
            n_taps = math.prod(kernel) if isinstance(kernel, tuple) else kernel**2
            more = math.ceil(math.log2(n_taps))
    elif getattr(value.target, "__name__", value.target) in ("add", "iadd", "sub"):
        more = len(read) - 1
    if len(read) < max(1, len(found)):
        return None
    return max(read) + more


def _rows(layer: Any) -> Tensor:
    """Return the trained weights of a layer, a row for each neuron or filter."""
    weight = layer.weight_orig if hasattr(layer, "weight_orig") else layer.weight
    rows: Tensor = weight.data.view(len(weight), fan_in(weight.shape))
    return rows


@torch.no_grad()
def keep_largest_weights(layer: Any, budget: int, progress: float = 1.0) -> Tensor:
    """Choose the largest weights of each neuron or filter, and make the others 0.

    Parameters
    ----------
    layer : QuantLinear, QuantConv1d or QuantConv2d
    budget : int
    progress : float, default=1.0
        From all weights, at 0, to the budget, along a cubic schedule.

    Returns
    -------
    Tensor
        Of a row for each neuron or filter: which weights were kept.
    """
    rows = _rows(layer)
    n = rows.shape[1]
    n_kept = budget + math.floor(max(0, n - budget) * (1 - progress) ** 3)
    order = rows.abs().argsort(dim=1, descending=True)
    kept = torch.zeros_like(rows, dtype=torch.bool).scatter_(1, order[:, :n_kept], True)
    rows.mul_(kept)
    return kept


def within_budgets(module: nn.Module, budgets: Mapping[str, int]) -> bool:
    """Whether no neuron or filter has more trained weights than its budget."""
    layers = quantized_layers(module)
    return all(int(_rows(layers[n]).count_nonzero(dim=1).max()) <= b for n, b in budgets.items())


@torch.no_grad()
def check_filters(module: nn.Module, budgets: Mapping[str, int]) -> None:
    """Raise RuntimeError if a neuron or filter has more non-zero integer weights than allowed."""
    layers = quantized_layers(module)
    for name, budget in budgets.items():
        weight = layers[name].quant_weight()
        counts = (weight.value != 0).flatten(1).sum(dim=1)
        if (counts > budget).any():
            raise RuntimeError(
                f"Channel {int(counts.argmax())} of layer {name} has {int(counts.max())} non-zero "
                f"weights, more than its budget of {budget}. Its quantizer has no 0, or a callback "
                "undid the pruning: use weight_bit_width of at least 2."
            )


class FilterPruner:
    """Pruning of a module that users wrote, step by step of its training.

    Parameters
    ----------
    module : torch.nn.Module
    n_accum_bits : int or None
        ``None`` sets no budgets.
    multiplier : float
        Factor on Ω.
    removed : dict of list of int
        Neurons and filters, by the name of their layer, whose weights stay 0.
    """

    def __init__(
        self,
        module: nn.Module,
        n_accum_bits: int | None,
        multiplier: float,
        removed: Mapping[str, Sequence[int]],
    ) -> None:
        self._module, self._removed = module, removed
        self._layers = quantized_layers(module)
        self._budgets: dict[str, int] = {}
        if n_accum_bits is not None:
            self._budgets = filter_budgets(module, n_accum_bits, multiplier)
        self._is_pruned = within_budgets(module, self._budgets)
        self._kept: dict[str, Tensor] = {}

    def begin_epoch(self, progress: float) -> None:
        """Choose the weights that are kept in this epoch."""
        for name, budget in self._budgets.items():
            progress = 1.0 if self._is_pruned else progress
            self._kept[name] = keep_largest_weights(self._layers[name], budget, progress)
        self.apply()

    @torch.no_grad()
    def apply(self) -> None:
        """Make the other weights 0 again, after a step."""
        for name, kept in self._kept.items():
            _rows(self._layers[name]).mul_(kept)
        for name, channels in self._removed.items():
            _rows(self._layers[name])[list(channels)] = 0

    def finish(self) -> None:
        """Raise RuntimeError unless every neuron and filter is within its budget."""
        check_filters(self._module, self._budgets)


def hidden_layers(module: nn.Module) -> dict[str, Any]:
    """Return the layers with quantized weights whose sums are looked up, by name."""
    traced = trace(module)
    (output,) = (node for node in traced.graph.nodes if node.op == "output")
    straight, waiting = set(), list(output.all_input_nodes)
    while waiting:
        node = waiting.pop()
        layer = traced.get_submodule(str(node.target)) if node.op == "call_module" else None
        proxies = (getattr(layer, name, None) for name in ("act_quant", "output_quant"))
        if any(proxy is not None and proxy.is_quant_enabled for proxy in proxies):
            continue
        if isinstance(layer, _KINDS):
            straight.add(str(node.target).removeprefix("module."))
        else:
            waiting += node.all_input_nodes
    return {n: layer for n, layer in quantized_layers(module).items() if n not in straight}


@torch.no_grad()
def filter_importance(module: nn.Module, layers: Mapping[str, Any], X: Tensor) -> list[Tensor]:
    """Measure how much the outputs change when a neuron or filter always gives its mean.

    Returns
    -------
    list of torch.Tensor
        For each layer, the mean squared change of the outputs as a part of their variance.
    """
    outputs = _value(module(X))
    variance = outputs.var(dim=0, unbiased=False).sum().clamp_min(1e-12)
    importance = []
    for layer in layers.values():
        changes = []
        for channel in range(len(layer.weight)):
            with _averaging(layer, channel):
                change = _value(module(X)) - outputs
            changes.append(change.square().mean(dim=0).sum() / variance)
        importance.append(torch.stack(changes))
    return importance


@contextlib.contextmanager
def _averaging(layer: Any, channel: int) -> Iterator[None]:
    """Have a layer give the mean of a channel instead of its values."""

    def average(_: Any, __: Any, output: Any) -> Tensor:
        values = _value(output).clone()
        part = values[..., channel] if isinstance(layer, QuantLinear) else values[:, channel]
        part.copy_(part.mean().expand_as(part))
        return values

    hook = layer.register_forward_hook(average)
    try:
        yield
    finally:
        hook.remove()


@torch.no_grad()
def remove_filters(module: nn.Module, removed: Mapping[str, Sequence[int]], X: Tensor) -> None:
    """Make the weights of neurons or filters 0, and their biases the mean of what they gave."""
    layers = quantized_layers(module)
    means: dict[str, Tensor] = {}

    def remember(name: str) -> Any:
        def hook(layer: Any, _: Any, output: Any) -> None:
            values = _value(output)
            channels = values if isinstance(layer, QuantLinear) else values.movedim(1, -1)
            means[name] = channels.flatten(0, -2).mean(dim=0)

        return hook

    hooks = [layers[name].register_forward_hook(remember(name)) for name in removed]
    module(X)
    for hook in hooks:
        hook.remove()
    for name, channels in removed.items():
        index = torch.as_tensor(list(channels), dtype=torch.long)
        _rows(layers[name])[index] = 0
        if layers[name].bias is not None:
            layers[name].bias.data[index] = means[name][index]


def _value(made: Any) -> Tensor:
    """Return a quantized tensor's value, or a tensor itself."""
    tensor: Tensor = getattr(made, "value", made)
    return tensor
