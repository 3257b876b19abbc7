"""Layers with weights, and batch normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np
from brevitas.nn import QuantLinear
from scipy.sparse import csr_array, kron

from cipherlearn.lowering._arithmetic import Arithmetic
from cipherlearn.lowering._matrices import convolution, padding_of, windows
from cipherlearn.lowering._quantizers import integer_weights, quantized_bias
from cipherlearn.lowering._signals import Signal, Sums, identity

__all__ = ["normalized", "weighted_sums"]


def normalized(layer: Any, x: Signal, name: str) -> Signal:
    """Apply batch normalisation, with the statistics of training."""
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


def weighted_sums(arithmetic: Arithmetic, layer: Any, x: Signal, name: str) -> Signal:
    """Multiply by the weights of a QuantLinear or a convolution, and add its bias."""
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
    made = arithmetic.combine(x, matrix, per_output, shape, name)
    if layer.bias is None:
        return made
    assert isinstance(x.source, Sums)
    bias, is_quantized = quantized_bias(layer, x.shape, float(x.source.scale[0]))
    bias = np.broadcast_to(bias.reshape(place), shape)
    sums = made.source
    assert isinstance(sums, Sums)
    steps = np.rint(bias.reshape(-1) / sums.scale)
    if made.is_exact and is_quantized and (abs(bias.reshape(-1) / sums.scale - steps) < 0.01).all():
        constant = sums.constant + steps.astype(np.int64)
        return Signal.of(Sums(sums.weights, constant, sums.scale), shape, name)
    return made.plus(bias, name)


def _check_shape(x: Signal, name: str, expected: tuple[int, ...], n: int | None = None) -> None:
    if x.shape != expected or (n is not None and len(x.shape) != n):
        raise ValueError(
            f"Shapes must fit. {name} reads {tuple(x.shape)} for each row. Reshape before it."
        )
