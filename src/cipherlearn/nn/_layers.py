"""Sparse linear Brevitas layer.

Its QuantTensors hold the integers of the program, with scale 1 and zero point 0: on ciphertexts
there is nothing else. In eval mode the layer computes with Brevitas's own proxies. In training it
computes the same integers without the proxies' run-time overhead, which exceeds the arithmetic of
a layer this small. The tests hold the two equal.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from brevitas.function.ops_ste import floor_ste
from brevitas.inject.enum import ScalingImplType
from brevitas.nn import QuantLinear
from brevitas.quant import Int8WeightPerTensorFloat
from torch import Tensor, nn

__all__ = ["SparseQuantLinear"]

# Standard deviation of what a bootstrap adds to its input, in units of the narrowest step that it
# tells apart: half a step is 7.2 of them at an error probability of 2**-40.
_BOOTSTRAP_NOISE = 0.07


class _UnitScaleWeight(Int8WeightPerTensorFloat):
    """Integer levels {-m, ..., m} with scale 1: a layer's gain holds the scale."""

    scaling_impl_type = ScalingImplType.CONST
    narrow_range = True


class _ToLevels(torch.autograd.Function):
    """Masked, rounded and clipped weights, with the gradient of the masked weights."""

    @staticmethod
    def forward(ctx, weight: Tensor, mask: Tensor, max_level: int) -> Tensor:
        ctx.save_for_backward(mask)
        return (weight * mask).round_().clamp_(-max_level, max_level)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (mask,) = ctx.saved_tensors
        return grad * mask, None, None


def _masked(quantizer: Any, arguments: tuple[Tensor]) -> Tensor:
    """Hide pruned weights from a weight quantizer, whoever calls it."""
    (layer,) = quantizer.tracked_module_list
    return arguments[0] * layer.mask


class SparseQuantLinear(QuantLinear):
    """Fully connected Brevitas layer with a mask, integer weights and a gain per neuron.

    Once quantized, the output is ``gain * accumulator + bias``, where the accumulator is a
    sum of integer weights times integer codes. It is computed as such: float32 holds integers
    up to 2**24 exactly, so the accumulator is the very integer that the encrypted circuit
    computes.

    ``quant_weight()`` then gives the integer weights, with scale 1 and zero point 0. Those that the
    mask drops are 0. The gain is not its scale: it multiplies the accumulator, after rounding.

    Parameters
    ----------
    in_features, out_features : int
        Shape of the layer.
    n_bits : int
        Bit-width of a weight. Levels are symmetric: 2 bits give {-1, 0, 1}.
    max_code : int
        Largest code of an input. :attr:`input_max` says it for each.
    max_width : int or None
        Largest span of a neuron, ``sum(abs(weight) * input_max)``.
    lsbs_to_remove : int, default=0
        Least significant bits of an accumulator that its lookup table does not see. The others
        are those of the nearest multiple of ``2**lsbs_to_remove``, the larger of two.
    bias : bool, default=True
        Whether there is a bias. A layer whose output is added to another's needs none.
    """

    quantized: Tensor
    mask: Tensor
    input_max: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        n_bits: int,
        max_code: int,
        max_width: int | None = None,
        lsbs_to_remove: int = 0,
        bias: bool = True,
    ) -> None:
        max_level = 2 ** (n_bits - 1) - 1
        super().__init__(
            in_features,
            out_features,
            bias=bias,
            weight_quant=_UnitScaleWeight,
            weight_bit_width=n_bits,
            weight_scaling_init=float(max_level),
        )
        self.max_level = max_level
        self.max_width = max_width
        self.lsbs_to_remove = lsbs_to_remove
        self.register_buffer("quantized", torch.tensor(False))
        self.register_buffer("mask", torch.ones(out_features, in_features))
        self.register_buffer("input_max", torch.full((in_features,), float(max_code)))
        self.log_gain = nn.Parameter(torch.zeros(out_features))
        self.weight_quant.register_forward_pre_hook(_masked)

    def effective_weight(self) -> Tensor:
        """Return the weights to multiply by: masked and, once quantized, integers."""
        if not self.quantized:
            return self.weight * self.mask
        return _ToLevels.apply(self.weight, self.mask, self.max_level)

    def widths(self) -> Tensor:
        """Span of each neuron: ``sum(abs(weight) * input_max)``."""
        return self.effective_weight().abs() @ self.input_max

    def output_range(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest output of each neuron, for every possible input."""
        weight = self.effective_weight() * self.input_max
        ends = weight.clamp(max=0).sum(dim=1), weight.clamp(min=0).sum(dim=1)
        return self.from_accumulator(ends[0]), self.from_accumulator(ends[1])

    def from_accumulator(self, accumulator: Tensor) -> Tensor:
        """Turn accumulators into real units. Element-wise, so lowering can tabulate it."""
        scaled = self._scaled(accumulator)
        return scaled if self.bias is None else scaled + self.bias

    def _scaled(self, accumulator: Tensor) -> Tensor:
        return self._rounded(accumulator) * self.log_gain.exp()

    def _rounded(self, accumulator: Tensor) -> Tensor:
        if self.lsbs_to_remove == 0:
            return accumulator
        step = 2**self.lsbs_to_remove
        steps = accumulator / step
        if self.training:
            # Approximate rounding sees this noise too, and exact rounding loses little by it.
            steps = steps + _BOOTSTRAP_NOISE * torch.randn_like(steps)
        return step * floor_ste(steps + 0.5)

    def inner_forward_impl(self, x, quant_weight, quant_bias=None) -> Tensor:
        """Multiply quantized inputs and weights, as Brevitas's ``forward`` calls it."""
        return self.from_accumulator(nn.functional.linear(x, quant_weight))

    def forward(self, inputs: Tensor) -> Tensor:
        if self._is_float:
            return nn.functional.linear(inputs, self.effective_weight(), self.bias)
        return self.inner_forward_impl(inputs, self._integer_weight())

    def without_bias(self, inputs: Tensor) -> Tensor:
        """Compute the output as it is before the bias is added."""
        if self._is_float:
            return nn.functional.linear(inputs, self.effective_weight())
        return self._scaled(nn.functional.linear(inputs, self._integer_weight()))

    @property
    def _is_float(self) -> bool:
        # What is exported is quantized: a trace cannot branch on a tensor to find out.
        return not (self.weight_quant.export_mode or self.quantized)

    def _integer_weight(self) -> Tensor:
        return self.effective_weight() if self.training else self.quant_weight()

    @torch.no_grad()
    def keep_largest(self, n_weights: int, progress: float = 1.0) -> None:
        """Mask all but each neuron's largest weights, as many as the limits allow.

        There may be ``n_weights``, and none may be left without a level of its own: weights of 1
        must fit ``max_width``. ``progress`` between 0 and 1 goes from all weights to the limits
        along a cubic schedule. An input whose code is always 0 gets no weight.
        """
        magnitude = self.weight.abs().masked_fill(self.input_max == 0, -1.0)
        order = magnitude.argsort(dim=1, descending=True)
        width = self.input_max[order].cumsum(dim=1)
        n_inputs, all_widths = self.in_features, float(self.input_max.sum())
        remaining = (1 - progress) ** 3
        n_kept = n_weights + math.floor(max(0, n_inputs - n_weights) * remaining)
        kept = torch.arange(n_inputs, device=width.device) < n_kept
        if self.max_width is not None:
            excess = max(0.0, all_widths - self.max_width)
            kept = kept & (width <= self.max_width + excess * remaining)
        kept = kept & (self.input_max[order] > 0)
        self.mask.scatter_(1, order, kept.to(self.mask))

    @torch.no_grad()
    def substitute_input(self, offset: Tensor, step: Tensor) -> Tensor:
        """Rewrite the float layer for inputs ``v`` with ``x = offset + step * v``.

        Returns what to add to the bias.
        """
        constant = self.effective_weight() @ offset
        self.weight.mul_(step)
        return constant

    @torch.no_grad()
    def calibrate(self, codes: Tensor) -> Tensor:
        """Quantize the weights with the scale per neuron that changes its output least.

        Parameters
        ----------
        codes : Tensor of shape (n_samples, in_features)
            Integer inputs on which the output is compared.

        Returns
        -------
        Tensor of shape (out_features,)
            What to add to the bias, so that the output keeps its mean exactly.
        """
        mean = codes.mean(dim=0)
        centred = codes - mean
        weight = self.weight * self.mask
        largest = weight.abs().amax(dim=1, keepdim=True)
        largest = torch.where(largest > 0, largest, torch.ones_like(largest))
        best_error = torch.full_like(largest, torch.inf)
        best_scale = 1.2 * largest  # no weight above 1
        # From a clipped largest weight to one that rounds to a single level.
        candidates = [
            *torch.linspace(0.3, 1.2, 46).tolist(),
            *torch.logspace(0.1, math.log10(1.2 * self.max_level), 15).tolist(),
        ]
        for candidate in candidates:
            scale = largest * (candidate / self.max_level)
            levels = (weight / scale).round().clamp(-self.max_level, self.max_level)
            error = (centred @ (levels * scale - weight).T).square().sum(dim=0)[:, None]
            if self.max_width is not None:
                width = (levels.abs() @ self.input_max)[:, None]
                error = error.masked_fill(width > self.max_width, torch.inf)
            better = error < best_error
            best_error = torch.where(better, error, best_error)
            best_scale = torch.where(better, scale, best_scale)
        self.weight.div_(best_scale)
        self.log_gain.copy_(best_scale.squeeze(1).log())
        self.quantized.fill_(True)
        self.project()
        rounded = self.effective_weight() * best_scale
        return (weight - rounded) @ mean

    @torch.no_grad()
    def project(self) -> None:
        """Bring every neuron back within ``max_width``, by the smallest changes of weights.

        Weights closest above a rounding threshold, relative to the span that they save, are
        moved just below it, each to the next smaller level, until the neuron fits.

        References
        ----------
        Colbert, Pappalardo and Petri-Koenig, "A2Q: Accumulator-aware quantization with guaranteed
        overflow avoidance", 2023, and "A2Q+", 2024, bound the same norm, by reparametrization.
        """
        if self.max_width is None or not self.quantized:
            return
        rows = (self.widths() > self.max_width).nonzero().squeeze(1)
        while len(rows):
            self._shrink(rows)
            rows = rows[self.widths()[rows] > self.max_width]

    def _shrink(self, rows: Tensor) -> None:
        """Lower weights of neurons that are too wide by a level, the cheapest first."""
        assert self.max_width is not None
        weight = self.weight[rows]
        levels = self.effective_weight()[rows]
        excess = (levels.abs() @ self.input_max - self.max_width)[:, None]
        margin = weight.abs().clamp_max(self.max_level + 0.5) - (levels.abs() - 0.5)
        saved = self.input_max * (levels != 0)
        order = (margin / saved).masked_fill(saved == 0, torch.inf).argsort(dim=1)
        ordered = saved.gather(1, order)
        needed = ordered.cumsum(dim=1) - ordered < excess
        moved = torch.zeros_like(needed).scatter_(1, order, needed) & (saved > 0)
        below = levels.sign() * (levels.abs() - 0.5 - 1e-3)
        self.weight[rows] = torch.where(moved, below, weight)
