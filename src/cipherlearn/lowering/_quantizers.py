"""Brevitas's quantizers and weights as integers and scales.

Tested with Brevitas 0.13.4. Its quantized tensors are ``(integer - zero_point) * scale``. Here the
zero point is part of the integers, so that ``integer * scale`` is the value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor

from cipherlearn.program._values import FloatArray, IntArray

__all__ = ["QuantizerOf", "integer_weights", "quantized_bias"]

# Largest deviation of a value from a multiple of its scale, in units of the scale.
_TOLERANCE = 0.01


class QuantizerOf:
    """Integers that a quantizer of a layer makes of real values.

    Parameters
    ----------
    proxy : Brevitas proxy
        Such as ``layer.act_quant``.
    name : str
        Name of the layer, for messages.
    """

    def __init__(self, proxy: Any, name: str) -> None:
        self.proxy = proxy
        self.name = name

    def __call__(self, values: Tensor) -> tuple[IntArray, FloatArray]:
        """Quantize (n_rows, *shape) values: integers (n_rows, n), and the scale of each element."""
        made = self.proxy(values)
        integers, scale = _integers(made, f"The quantizer of {self.name}")
        if scale.ndim and scale.ndim != values.ndim and scale.numel() > 1:
            raise ValueError(
                f"A quantizer needs one scale, or one for each channel. {self.name} has scales of "
                f"shape {tuple(scale.shape)}. Use scaling_per_output_channel, or none."
            )
        scale = scale.reshape(-1) if scale.numel() == 1 else scale[:1]
        per_element = torch.broadcast_to(scale, (1, *values.shape[1:])).reshape(-1)
        return integers.reshape(len(values), -1), per_element.double().numpy()


def integer_weights(layer: Any, name: str) -> tuple[IntArray, FloatArray]:
    """Return the integer weights of a layer, and the scale of each of its outputs."""
    if not layer.weight_quant.is_quant_enabled:
        raise ValueError(
            f"Weights must be quantized. Those of {name} are float. Give it a weight_quant, such "
            "as brevitas.quant.Int8WeightPerTensorFloat, with weight_bit_width."
        )
    made = layer.quant_weight()
    integers, scale = _integers(made, f"The weight quantizer of {name}")
    n_outputs = len(integers)
    if scale.numel() not in (1, n_outputs) or (scale.numel() > 1 and len(scale) != n_outputs):
        raise ValueError(
            f"Weights need one scale, or one for each output channel. {name} has scales of shape "
            f"{tuple(scale.shape)}. Use such as Int8WeightPerChannelFloat."
        )
    return integers, np.broadcast_to(scale.reshape(-1).double().numpy(), n_outputs)


def quantized_bias(
    layer: Any, shape: tuple[int, ...], input_scale: float
) -> tuple[FloatArray, bool]:
    """Return the bias of a layer as it adds it, in float64, and whether it is quantized."""
    if not layer.bias_quant.is_quant_enabled:
        return layer.bias.double().numpy(), False
    scale = torch.tensor(input_scale, dtype=torch.float32)
    given = IntQuantTensor(torch.zeros(1, *shape), scale, 0.0, 8.0, True, False)
    bias = layer.bias_quant(layer.bias, given, layer.quant_weight())
    return getattr(bias, "value", bias).double().numpy(), True


def _integers(made: Any, what: str) -> tuple[IntArray, Tensor]:
    """Return the integers of a quantized tensor, zero point subtracted, and its scale."""
    if not isinstance(made, IntQuantTensor):
        raise ValueError(
            f"Quantizers must be of integers. {what} gives {type(made).__name__}. Use one of "
            "brevitas.quant's Int or Uint quantizers."
        )
    units = made.value.double() / made.scale.double()
    integers = units.round()
    if not (units - integers).abs().max() <= _TOLERANCE:  # also of NaN
        raise ValueError(
            f"{what} must give whole multiples of its scale, and no NaN. It does not: check its "
            "zero point, and that training did not diverge."
        )
    return integers.to(torch.int64).numpy(), made.scale
