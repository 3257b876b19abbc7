"""Lowering of any module of Brevitas layers, by tracing its forward."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cipherlearn.lowering._assembly import Assembly
from cipherlearn.lowering._interpreter import Reader
from cipherlearn.lowering._signals import Columns, Signal, Total
from cipherlearn.nn._tracing import copied, trace
from cipherlearn.program._decoder import OutputScaler
from cipherlearn.program._program import IntegerProgram
from cipherlearn.program._values import IntArray

__all__ = ["LoweredModule", "check_outputs", "lower_traced"]

# Largest error of an output, as a share of the largest output, on half of the rows.
_ALLOWED_ERROR = 0.1


@dataclass(frozen=True)
class LoweredModule:
    """A program, before anything is left out, and where a module's integers are in it.

    Attributes
    ----------
    program : IntegerProgram
    codes : dict of (int, ndarray)
        By the name of each quantizer: the number of the value that holds its integers, and what
        to add to the value.
    """

    program: IntegerProgram
    codes: dict[str, tuple[int, IntArray]]


@torch.no_grad()
def lower_traced(module: nn.Module, n_features: int) -> LoweredModule:
    """Lower a module of Brevitas layers, without leaving anything out.

    Parameters
    ----------
    module : torch.nn.Module
        It is not changed.
    n_features : int
        Number of features of a row.
    """
    module = copied(module).cpu().eval()
    _check_finite(module)
    assembly = Assembly(n_features)
    reader = Reader(trace(module), assembly)
    features = Signal.of(Columns(np.arange(n_features)), (n_features,), "the features")
    made = reader.run(features)
    if not isinstance(made, Signal | Total):
        raise ValueError(
            f"A module's forward must return one tensor. Got {type(made).__name__}. Return the "
            "outputs alone."
        )
    outputs, scaler = _outputs(made, reader)
    program, number = assembly.finish(outputs, scaler)
    codes = {}
    for name, sums in reader.arithmetic.codes.items():
        position = assembly.position(sums)
        if position in number:
            codes[name] = (number[position], sums.constant)
    return LoweredModule(program, codes)


def _outputs(made: Signal | Total, reader: Reader) -> tuple[list[int], OutputScaler]:
    terms = made.terms if isinstance(made, Total) else (made,)
    if len(made.shape) > 1:
        raise ValueError(
            f"Outputs must be of shape (n_rows, n_outputs). Those of the module are of shape "
            f"(n_rows, {', '.join(map(str, made.shape))}). Flatten them at the end."
        )
    positions, gains = [], []
    bias = np.zeros(max(1, int(np.prod(made.shape))))
    for term in terms:
        sums, offset = reader.arithmetic.affine(term, "the output")
        positions.append(reader.arithmetic.assembly.add_sum(sums))
        gains.append(sums.scale)
        bias = bias + offset
    scaler = OutputScaler(np.concatenate(gains).astype(np.float32), bias.astype(np.float32))
    return positions, scaler


def _check_finite(module: nn.Module) -> None:
    for name, value in module.named_parameters():
        if not value.isfinite().all():
            raise ValueError(
                f"Trained parameters must be finite. {name} is not: training diverged. Lower lr, "
                "or scale the data."
            )


@torch.no_grad()
def check_outputs(program: IntegerProgram, module: nn.Module, X: NDArray[np.float64]) -> None:
    """Raise ValueError unless the program computes what the module does, rounding apart.

    Sums that lie on the border between two codes can make some rows differ.
    """
    if not len(X):
        return
    module = copied(module).cpu().eval()
    with warnings.catch_warnings():
        # Brevitas's, of what its own quantized tensors lack.
        warnings.simplefilter("ignore")
        made = module(torch.from_numpy(np.asarray(X, dtype=np.float32)))
    expected = getattr(made, "value", made).reshape(len(X), -1).numpy()
    error = np.abs(program(X) - expected).max(axis=1)
    allowed = _ALLOWED_ERROR * np.abs(expected).max()
    if not np.median(error) <= allowed:
        raise ValueError(
            "A module must compute in eval mode what torch.fx traced. On most rows the outputs of "
            f"{type(module).__name__} differ by more than {allowed:.3g}. Leave out of its forward "
            "what depends on the data or on Python state."
        )
