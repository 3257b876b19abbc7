"""Hidden blocks of a network: a linear layer, an activation, and a quantizer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cipherlearn.nn._activations import ActivationQuantizer, LearnedActivation
from cipherlearn.nn._layers import SparseQuantLinear

__all__ = ["Block", "Codes", "quantize"]


class Codes(NamedTuple):
    """Codes, each of which stands for ``offset + step * code``.

    Parameters
    ----------
    values : torch.Tensor of shape (n_samples, n_codes)
    offset, step : torch.Tensor of shape (n_codes,)
    """

    values: Tensor
    offset: Tensor
    step: Tensor


class Block(NamedTuple):
    """A hidden layer. Its sums are what a lookup table turns into its codes.

    Parameters
    ----------
    linear : SparseQuantLinear
    activation : LearnedActivation
    quantizer : ActivationQuantizer
    """

    linear: SparseQuantLinear
    activation: LearnedActivation
    quantizer: ActivationQuantizer

    def __call__(self, codes: Tensor) -> Tensor:
        return self.encode(self.linear(codes))

    def encode(self, outputs: Tensor) -> Tensor:
        """Compute codes from outputs of the linear layer."""
        return self.quantizer(self.activation(outputs))

    def calibrate(self, inputs: Codes, percentile: float) -> Codes:
        """Quantize the block, and return its codes.

        Parameters
        ----------
        inputs : Codes
        percentile : float
            Codes span activations between percentiles ``100 - percentile`` and ``percentile``.

        Returns
        -------
        Codes
        """
        quantize(self.linear, self.linear.bias, inputs)
        self.activation.calibrate(*self.linear.output_range())
        values = self.activation(self.linear(inputs.values))
        self.quantizer.calibrate(*_robust_range(values, percentile))
        return Codes(self.quantizer(values), self.quantizer.offset, self.quantizer.step)


def quantize(linear: SparseQuantLinear, bias: Tensor, inputs: Codes) -> None:
    """Quantize a layer, and move into a bias what its inputs and its rounding shift."""
    bias.add_(linear.substitute_input(inputs.offset, inputs.step))
    bias.add_(linear.calibrate(inputs.values))


def _robust_range(values: Tensor, percentile: float) -> tuple[Tensor, Tensor]:
    fraction = percentile / 100
    low = torch.quantile(values, 1 - fraction, dim=0)
    high = torch.quantile(values, fraction, dim=0)
    # An activation that is nearly always the same value still needs its rare ones.
    flat = high <= low
    return (
        torch.where(flat, values.amin(dim=0), low),
        torch.where(flat, values.amax(dim=0), high),
    )
