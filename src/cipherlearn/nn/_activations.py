"""Activations of hidden neurons, and the codes that they become.

Their QuantTensors hold the integers of the program, as those of the linear layers do.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from brevitas.function.ops_ste import round_ste
from brevitas.inject.enum import ScalingImplType
from brevitas.nn import QuantIdentity
from brevitas.quant import Uint8ActPerTensorFloat
from torch import Tensor, nn

__all__ = ["ActivationQuantizer", "LearnedActivation", "element_wise"]

# Knots of a learned activation: one for each sum of 4 bits.
_KNOTS = 16

# Largest value at a knot. Between infinite ones there would be no line.
_LARGEST = 1e30


class _UnitScaleCode(Uint8ActPerTensorFloat):
    """Integer levels {0, ..., 2**bits - 1} with scale 1."""

    scaling_impl_type = ScalingImplType.CONST


class ActivationQuantizer(QuantIdentity):
    """Map each neuron's activation to an integer code.

    Until :meth:`calibrate` is called activations pass unchanged. Afterwards the output is
    ``clip(round((x - offset) / step), 0, 2**n_bits - 1)``. These codes are what the next layer
    multiplies its weights by, and so what ``act_quant`` describes: it quantizes
    ``(x - offset) / step`` with scale 1 and zero point 0.

    Parameters
    ----------
    n_neurons : int
        Number of neurons, each with its own offset and step.
    n_bits : int
        Bit-width of a code.
    """

    quantized: Tensor
    offset: Tensor

    def __init__(self, n_neurons: int, n_bits: int) -> None:
        super().__init__(
            act_quant=_UnitScaleCode, bit_width=n_bits, scaling_init=float(2**n_bits - 1)
        )
        self.max_code = 2**n_bits - 1
        self.register_buffer("quantized", torch.tensor(False))
        self.register_buffer("offset", torch.zeros(n_neurons))
        self.log_step = nn.Parameter(torch.zeros(n_neurons))

    @property
    def step(self) -> Tensor:
        """Width of one code, per neuron, in units of the activation."""
        return self.log_step.exp()

    def forward(self, x: Tensor) -> Tensor:
        # What is exported is quantized: a trace cannot branch on a tensor to find out.
        exporting = self.act_quant.export_mode
        if not (exporting or self.quantized):
            return x
        units = (x - self.offset) / self.step
        # Brevitas would export codes of 1 bit as -1 and 1.
        if self.training or (exporting and self.max_code == 1):
            return round_ste(units.clamp(0, self.max_code))
        return self.pack_output(self.act_quant(units))

    @torch.no_grad()
    def calibrate(self, low: Tensor, high: Tensor) -> None:
        """Spread the codes over ``[low, high]``, per neuron, and start quantizing."""
        # A constant activation has no width. Any step keeps its code at 0.
        width = torch.where(high > low, high - low, torch.ones_like(high))
        self.offset.copy_(low)
        self.log_step.copy_((width / self.max_code).log())
        self.quantized.fill_(True)


class LearnedActivation(nn.Module):
    """Activation that each neuron of a quantized network learns for itself.

    Until :meth:`calibrate` is called it is a given function. Afterwards it interpolates linearly
    between its values at evenly spaced knots, and training changes these values. A lookup table
    costs the same whatever function it holds.

    Parameters
    ----------
    function : torch.nn.Module
        Element-wise function to begin with.
    n_neurons : int
    """

    quantized: Tensor
    first: Tensor
    spacing: Tensor

    def __init__(self, function: nn.Module, n_neurons: int) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("quantized", torch.tensor(False))
        self.register_buffer("first", torch.zeros(n_neurons))
        self.register_buffer("spacing", torch.ones(n_neurons))
        self.values = nn.Parameter(torch.zeros(n_neurons, _KNOTS))

    def forward(self, x: Tensor) -> Tensor:
        # What is exported is calibrated: a trace cannot branch on a tensor to find out.
        if not (torch.onnx.is_in_onnx_export() or self.quantized):
            return self.function(x)
        position = ((x - self.first) / self.spacing).clamp(0, _KNOTS - 1)
        knot = position.detach().floor().clamp(max=_KNOTS - 2)
        index = knot.long() + torch.arange(len(self.values), device=x.device) * _KNOTS
        values = self.values.flatten()
        left, right = values[index], values[index + 1]
        return left + (position - knot) * (right - left)

    @torch.no_grad()
    def calibrate(self, low: Tensor, high: Tensor) -> None:
        """Spread each neuron's knots over ``[low, high]``, and take the function's values there.

        Raises
        ------
        ValueError
            If the function gives NaN there.
        """
        width = torch.where(high > low, high - low, torch.ones_like(high))
        self.first.copy_(low)
        self.spacing.copy_(width / (_KNOTS - 1))
        steps = torch.arange(_KNOTS, device=low.device)[:, None]
        values = self.function(self.first + self.spacing * steps).T
        if values.isnan().any():
            raise ValueError(
                "The activation function must give a number for every accumulator. "
                f"{type(self.function).__name__} gives NaN. Choose another activation function."
            )
        self.values.copy_(values.clamp(-_LARGEST, _LARGEST))
        self.quantized.fill_(True)


def element_wise(activation_function: Callable[[], nn.Module]) -> nn.Module:
    """Create the activation, and check that a lookup table per neuron can stand for it."""
    activation = activation_function()
    rows = torch.linspace(-2, 2, 12).reshape(3, 4)
    with torch.no_grad():
        whole = activation.eval()(rows)
        apart = [activation(value.reshape(1, 1)) for value in rows.flatten()]
    if not whole.isfinite().all():
        raise ValueError(
            "activation_function must be finite for every number, since any sum can occur. "
            f"{activation} is not, between -2 and 2. Use one such as torch.nn.ReLU."
        )
    is_element_wise = whole.shape == rows.shape and torch.allclose(
        torch.cat(apart).reshape(rows.shape), whole
    )
    if not is_element_wise:
        raise ValueError(
            "activation_function must be element-wise, since it becomes a lookup table. "
            f"{activation} mixes its inputs. Use one such as torch.nn.ReLU."
        )
    return activation.train()
