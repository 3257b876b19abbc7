"""Modules of Brevitas layers, as users write them, and what Brevitas computes in them."""

from __future__ import annotations

import brevitas.nn as qnn
import numpy as np
import torch
from brevitas.quant import (
    Int8ActPerTensorFixedPoint,
    Int8ActPerTensorFloat,
    Int8WeightPerTensorFixedPoint,
    Int8WeightPerTensorFloat,
    ShiftedUint8ActPerTensorFloat,
    Uint8ActPerTensorFixedPoint,
    Uint8ActPerTensorFloat,
)
from torch import nn

# How far from a border between codes, in codes, float32 is trusted to take the same one.
NEAR = 1e-4


class Chain(nn.Module):
    """Layers one after the other, on rows in the shape of images."""

    def __init__(self, shape, layers) -> None:
        super().__init__()
        self.shape = shape
        self.layers = nn.ModuleList(layers)

    def forward(self, X):
        X = X.view(X.shape[0], *self.shape)
        for layer in self.layers:
            X = layer(X)
        return X


def weights(fixed, bits=3, per_channel=False):
    """Arguments of a weight quantizer, with scales that are powers of two if ``fixed``."""
    kind = Int8WeightPerTensorFixedPoint if fixed else Int8WeightPerTensorFloat
    return {
        "weight_quant": kind,
        "weight_bit_width": bits,
        "weight_scaling_per_output_channel": per_channel,
    }


def signed(fixed, bits=3, shifted=False):
    kind = Int8ActPerTensorFixedPoint if fixed else Int8ActPerTensorFloat
    kind = ShiftedUint8ActPerTensorFloat if shifted else kind
    return qnn.QuantIdentity(act_quant=kind, bit_width=bits, return_quant_tensor=True)


def relu(fixed, bits=2):
    kind = Uint8ActPerTensorFixedPoint if fixed else Uint8ActPerTensorFloat
    return qnn.QuantReLU(act_quant=kind, bit_width=bits, return_quant_tensor=True)


def trained(module: nn.Module, n_features: int, seed: int, n_rows: int = 64):
    """Let a module learn its ranges on random rows, and return it in eval mode with the rows."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n_rows, n_features, generator=generator) * 2
    module.train()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.weight.normal_(1, 0.3, generator=generator)
                part.bias.normal_(0, 0.3, generator=generator)
        for _ in range(3):
            module(X)
    return module.eval(), X


def brevitas_codes(module: nn.Module, X: torch.Tensor):
    """Integers of every quantizer on rows, by layer, and the rows that are near no border.

    Zero points are subtracted: what is left times the scale is the value.
    """
    codes, far = {}, np.ones(len(X), dtype=bool)
    hooks = []

    def watch(name, proxy):
        def units(tensor_quant, inputs):
            seen.append(inputs[0])

        def made(_, inputs, output):
            whole = output.int() - output.zero_point
            codes[name] = whole.reshape(len(X), -1).to(torch.int64).numpy()
            position = (seen.pop() / output.scale).double()
            border = (position - 0.5 - (position - 0.5).round()).abs()
            far[(border < NEAR).reshape(len(X), -1).any(dim=1).numpy()] = False

        seen: list[torch.Tensor] = []
        fused = proxy.fused_activation_quant_proxy.tensor_quant
        hooks.append(fused.register_forward_pre_hook(units))
        hooks.append(proxy.register_forward_hook(made))

    for name, part in module.named_modules():
        for kind in ("input_quant", "act_quant", "output_quant"):
            proxy = getattr(part, kind, None)
            if proxy is not None and proxy.is_quant_enabled:
                watch(name if kind == "act_quant" else f"{name}.{kind}", proxy)
    with torch.no_grad():
        outputs = module(X)
    for hook in hooks:
        hook.remove()
    return codes, far, getattr(outputs, "value", outputs).reshape(len(X), -1).numpy()


def program_codes(lowered, X):
    """Integers of every quantizer as the program computes them."""
    program = lowered.program
    values = program._values(program.quantize(X).T)
    for _ in _evaluated(program, values):
        pass
    return {
        name: (values[number].astype(np.int64) + first[:, None]).T
        for name, (number, first) in lowered.codes.items()
    }


def _evaluated(program, values):
    from cipherlearn.program._evaluation import evaluate

    return evaluate(program.nodes, program._layer_of, values)
