"""Layers and functions of torch by what lowering does with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import brevitas.nn as qnn
from torch import nn

__all__ = [
    "ADDITIONS",
    "ELEMENT_WISE",
    "ELEMENT_WISE_LAYERS",
    "MOVES",
    "SKIPPED_LAYERS",
    "SUBTRACTIONS",
    "unsupported_layer",
    "unsupported_operation",
]

SKIPPED_LAYERS = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)

ELEMENT_WISE_LAYERS = (
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.Hardshrink,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.LogSigmoid,
    nn.Mish,
    nn.PReLU,
    nn.ReLU,
    nn.ReLU6,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Softshrink,
    nn.Softsign,
    nn.Tanh,
    nn.Tanhshrink,
    nn.Threshold,
)


def _names(*names: str) -> frozenset[str]:
    """Name functions as tensors, ``torch``, ``operator`` and ``torch.nn.functional`` have them."""
    return frozenset(names)


# With constants besides the one tensor.
ELEMENT_WISE = _names(
    *("abs", "celu", "clamp", "clip", "elu", "exp", "gelu", "hardsigmoid", "hardswish", "hardtanh"),
    *("leaky_relu", "log1p", "logsigmoid", "mish", "neg", "pow", "prelu", "relu", "relu6", "selu"),
    *("sigmoid", "silu", "softplus", "softshrink", "softsign", "square", "tanh", "tanhshrink"),
    *("mul", "truediv", "div", "multiply", "divide", "threshold"),
)
ADDITIONS = _names("add", "iadd")
SUBTRACTIONS = _names("sub", "isub", "subtract")

# What only moves elements.
MOVES = _names(
    *("chunk", "flatten", "flip", "getitem", "movedim", "narrow", "permute", "reshape", "select"),
    *("squeeze", "swapaxes", "transpose", "unflatten", "unsqueeze", "view", "repeat_interleave"),
)

_QUANTIZED = "Use {} of brevitas.nn, with weight_bit_width."
_LEAVE_OUT = (
    "Leave it out: the criterion applies it in training, and clients compute probabilities."
)
_REMEDIES: list[tuple[type[nn.Module], str]] = [
    (nn.Linear, _QUANTIZED.format("QuantLinear")),
    (nn.Conv1d, _QUANTIZED.format("QuantConv1d")),
    (nn.Conv2d, _QUANTIZED.format("QuantConv2d")),
    (nn.Softmax, _LEAVE_OUT),
    (nn.LogSoftmax, _LEAVE_OUT),
    (nn.LayerNorm, "Its statistics are of encrypted values. Use torch.nn.BatchNorm1d."),
    (nn.GroupNorm, "Its statistics are of encrypted values. Use torch.nn.BatchNorm2d."),
    (nn.BatchNorm3d, "Use torch.nn.BatchNorm2d."),
    (qnn.TruncAvgPool2d, "Use torch.nn.AvgPool2d and a QuantIdentity behind it."),
    (qnn.TruncAdaptiveAvgPool2d, "Use torch.nn.AdaptiveAvgPool2d and a QuantIdentity behind it."),
    (qnn.BatchNorm1dToQuantScaleBias, "Use torch.nn.BatchNorm1d, which becomes part of a table."),
    (qnn.BatchNorm2dToQuantScaleBias, "Use torch.nn.BatchNorm2d, which becomes part of a table."),
]
_REMEDY = (
    "Use QuantLinear, QuantConv1d, QuantConv2d, QuantIdentity, QuantReLU, batch normalisation, "
    "average or max pooling, and element-wise activations before a quantizer."
)


def unsupported_layer(layer: nn.Module, name: str) -> ValueError:
    """Make the error for a layer that has no integer form, with what to use instead."""
    kind = type(layer)
    remedies = [remedy for known, remedy in _REMEDIES if isinstance(layer, known)]
    return ValueError(
        f"A module needs layers that have an integer form. {name} is a {kind.__module__}."
        f"{kind.__qualname__}. {remedies[0] if remedies else _REMEDY}"
    )


def unsupported_operation(target: Callable[..., Any] | str, name: str) -> ValueError:
    """Make the error for a function that has no integer form."""
    called = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    remedy = _LEAVE_OUT if "softmax" in called else _REMEDY
    if called in ("linear", "conv1d", "conv2d", "matmul"):
        remedy = "Use QuantLinear, QuantConv1d or QuantConv2d of brevitas.nn."
    return ValueError(
        f"A module needs operations that have an integer form. Its forward calls {called} "
        f"({name} of the graph). {remedy}"
    )
