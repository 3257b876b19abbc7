"""Brevitas layers of a network: affine quantizers and sparse linear layers.

Both override ``forward`` to compute the integers of Brevitas's own proxies without their run-time
overhead, which exceeds the arithmetic of layers this small. The tests hold the two equal.
"""

from __future__ import annotations

import math

import torch
from brevitas.function.ops_ste import round_ste, scalar_clamp_ste
from brevitas.inject.enum import ScalingImplType
from brevitas.nn import QuantIdentity, QuantLinear
from brevitas.quant import Int8WeightPerTensorFloat, Uint8ActPerTensorFloat
from torch import Tensor, nn

__all__ = ["AffineQuantizer", "SparseQuantLinear"]


class _UnitScaleWeight(Int8WeightPerTensorFloat):
    """Integer levels {-m, ..., m} with scale 1: a layer's gain holds the scale."""

    scaling_impl_type = ScalingImplType.CONST
    narrow_range = True


class _UnitScaleCode(Uint8ActPerTensorFloat):
    """Integer levels {0, ..., 2**bits - 1} with scale 1."""

    scaling_impl_type = ScalingImplType.CONST


class AffineQuantizer(QuantIdentity):
    """Map each feature to an integer code by an affine rule, or to real units.

    Until :meth:`calibrate` is called the output is ``(x - offset) / step``,
    a plain normalization. Afterwards it is
    ``clip(round((x - offset) / step), 0, 2**n_bits - 1)``.

    Parameters
    ----------
    n_features : int
        Number of features, each with its own offset and step.
    n_bits : int
        Width of a code, in bits.
    dtype : torch.dtype
        Precision of the affine rule. The input quantizer uses float64 so that raw
        data with a large mean keeps its information.
    """

    quantized: Tensor
    offset: Tensor

    def __init__(self, n_features: int, n_bits: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(
            act_quant=_UnitScaleCode, bit_width=n_bits, scaling_init=float(2**n_bits - 1)
        )
        self.max_code = 2**n_bits - 1
        self.register_buffer("quantized", torch.tensor(False))
        self.register_buffer("offset", torch.zeros(n_features, dtype=dtype))
        self.log_step = nn.Parameter(torch.zeros(n_features, dtype=dtype))

    @property
    def step(self) -> Tensor:
        """Width of one code, per feature, in units of the input."""
        return self.log_step.exp()

    def forward(self, x: Tensor) -> Tensor:
        units = (x.to(self.offset.dtype) - self.offset) / self.step
        if self.quantized:
            units = round_ste(units.clamp(0, self.max_code))
        return units

    @torch.no_grad()
    def calibrate(self, low: Tensor, high: Tensor) -> None:
        """Spread the codes over ``[low, high]``, per feature, and start quantizing."""
        # A constant feature has no width. Any step keeps its code at 0.
        width = torch.where(high > low, high - low, torch.ones_like(high))
        self.offset.copy_(low)
        self.log_step.copy_((width / self.max_code).log())
        self.quantized.fill_(True)


class SparseQuantLinear(QuantLinear):
    """Fully connected Brevitas layer with a mask, integer weights and a gain per neuron.

    The output is ``gain * accumulator + bias`` where, once quantized, the
    accumulator is a sum of integer weights times integer codes. It is computed as
    such: float32 holds integers up to 2**24 exactly, so the accumulator is the very
    integer that the encrypted circuit computes.

    Parameters
    ----------
    in_features, out_features : int
        Shape of the layer.
    n_bits : int
        Width of a weight, in bits. Levels are symmetric: 2 bits give {-1, 0, 1}.
    l1_limit : int or None
        Largest sum of the magnitudes of a neuron's integer weights.
    """

    quantized: Tensor
    mask: Tensor

    def __init__(
        self, in_features: int, out_features: int, n_bits: int, l1_limit: int | None = None
    ) -> None:
        max_level = 2 ** (n_bits - 1) - 1
        super().__init__(
            in_features,
            out_features,
            bias=True,
            weight_quant=_UnitScaleWeight,
            weight_bit_width=n_bits,
            weight_scaling_init=float(max_level),
        )
        self.max_level = max_level
        self.l1_limit = l1_limit
        self.register_buffer("quantized", torch.tensor(False))
        self.register_buffer("mask", torch.ones(out_features, in_features))
        self.log_gain = nn.Parameter(torch.zeros(out_features))

    def effective_weight(self) -> Tensor:
        """Return the weights to multiply by: masked and, once quantized, integers."""
        weight = self.weight * self.mask
        if self.quantized:
            weight = scalar_clamp_ste(round_ste(weight), -self.max_level, self.max_level)
        return weight

    def from_accumulator(self, accumulator: Tensor) -> Tensor:
        """Turn accumulators into real units. Element-wise, so lowering can tabulate it."""
        return accumulator * self.log_gain.exp() + self.bias

    def forward(self, codes: Tensor) -> Tensor:
        return self.from_accumulator(nn.functional.linear(codes, self.effective_weight()))

    @torch.no_grad()
    def keep_largest(self, n_weights: int) -> None:
        """Mask all but each neuron's ``n_weights`` weights of the largest magnitude."""
        kept = self.weight.abs().topk(min(n_weights, self.in_features), dim=1).indices
        self.mask.zero_().scatter_(1, kept, 1.0)

    @torch.no_grad()
    def substitute_input(self, offset: Tensor, step: Tensor) -> None:
        """Rewrite the layer for inputs ``v`` with ``x = offset + step * v``: same function."""
        self.bias.add_(self.log_gain.exp() * (self.effective_weight() @ offset))
        self.weight.mul_(step)

    @torch.no_grad()
    def calibrate(self) -> None:
        """Choose each neuron's scale by least squares, move it to the gain, and quantize."""
        weight = self.weight * self.mask
        largest = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12)
        # From a clipped largest weight to one that rounds to a single level.
        candidates = torch.cat(
            [
                torch.linspace(0.3, 1.2, 46),
                torch.logspace(0.1, math.log10(1.2 * self.max_level), 15),
            ]
        ).to(weight.device)
        scales = largest * candidates[:, None, None] / self.max_level
        levels = (weight / scales).round().clamp(-self.max_level, self.max_level)
        errors = ((levels * scales - weight) ** 2).sum(dim=2)
        if self.l1_limit is not None:
            errors = errors.masked_fill(levels.abs().sum(dim=2) > self.l1_limit, torch.inf)
        scale = scales.squeeze(2).gather(0, errors.argmin(dim=0, keepdim=True)).squeeze(0)
        self.weight.div_(scale[:, None])
        self.log_gain.add_(scale.log())
        self.quantized.fill_(True)
        self.project()

    @torch.no_grad()
    def project(self) -> None:
        """Bring every neuron back within ``l1_limit``, by the smallest changes of weights.

        A neuron that exceeds the limit by ``e`` has the ``e`` weights closest above a rounding
        threshold moved just below it, each to the next smaller level.

        References
        ----------
        Colbert, Pappalardo and Petri-Koenig, "A2Q: Accumulator-aware quantization with guaranteed
        overflow avoidance", 2023, and "A2Q+", 2024, bound the same norm, by reparametrization.
        """
        if self.l1_limit is None or not self.quantized:
            return
        while True:
            levels = self.effective_weight()
            excess = levels.abs().sum(dim=1) - self.l1_limit
            if not (excess > 0).any():
                return
            margin = self.weight.abs().clamp_max(self.max_level + 0.5) - (levels.abs() - 0.5)
            margin = margin.masked_fill(levels == 0, torch.inf)
            rank = margin.argsort(dim=1).argsort(dim=1)
            moved = (rank < excess[:, None]) & (levels != 0)
            below = levels.sign() * (levels.abs() - 0.5 - 1e-3)
            self.weight.copy_(torch.where(moved, below, self.weight))
