"""Arithmetic of a traced module's tensors, as nodes of a program."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array

from cipherlearn.lowering._assembly import Assembly
from cipherlearn.lowering._quantizers import QuantizerOf
from cipherlearn.lowering._signals import Columns, Signal, Sums, Total, joined
from cipherlearn.lowering._thresholds import find_thresholds
from cipherlearn.program._values import FloatArray, IntArray

__all__ = ["Arithmetic", "mixed_units"]

_NO_QUANTIZER = "Put a QuantIdentity, QuantReLU or another quantizer between them."


class Arithmetic:
    """Operations on tensors of integers, which make nodes of a program.

    Parameters
    ----------
    assembly : Assembly
        Where nodes go.

    Attributes
    ----------
    codes : dict of Sums
        Integers of each quantizer, by the name of its layer.
    """

    def __init__(self, assembly: Assembly) -> None:
        self.assembly = assembly
        self.codes: dict[str, Sums] = {}

    def combine(
        self, x: Signal, matrix: csr_array, scale: FloatArray, shape: tuple[int, ...], name: str
    ) -> Signal:
        """Multiply a tensor by an integer matrix and by a scale for each result."""
        sums, bias = self.affine(x, name)
        remedy = f"Put a quantizer of one scale before {name}."
        made = sums.times(matrix, f"Layer {name}", remedy)
        made = Sums(made.weights, made.constant, made.scale * scale)
        signal = Signal.of(made, shape, name)
        if not bias.any():
            return signal
        return signal.plus((scale * (matrix @ bias)).reshape(shape), name)

    def affine(self, x: Signal, name: str) -> tuple[Sums, FloatArray]:
        """Return a tensor as integers and a bias, or raise ValueError if it is none."""
        if isinstance(x.source, Columns):
            raise ValueError(
                f"Features must be quantized first. They reach {name} as they are. Begin with a "
                "QuantIdentity, or give the first layer an input_quant."
            )
        if x.gain is None or x.bias is None:
            raise ValueError(
                f"Sums need integers. {name} reads what an activation makes of {x.owner}, which "
                f"is no integer. {_NO_QUANTIZER}"
            )
        sums = x.source.take(x.order)
        return Sums(sums.weights, sums.constant, sums.scale * x.gain), x.bias

    def quantize(self, x: Signal | Total, proxy: Any, name: str) -> Signal:
        """Turn a tensor into the integers of a quantizer."""
        if isinstance(x, Total):
            raise mixed_units([x])
        quantizer, source = QuantizerOf(proxy, name), x.source
        if isinstance(source, Columns):
            sums = self._encode(x, source, quantizer)
        else:
            scale = source.scale

            def table(integers: IntArray) -> tuple[IntArray, FloatArray]:
                values = (integers * scale).astype(np.float32)
                return quantizer(x.compute(torch.from_numpy(values)))

            sums = self.assembly.look_up(source, table, x.owner, x.shape, x.order)
        self.codes[name] = sums
        return Signal.of(sums, x.shape, name)

    def _encode(self, x: Signal, source: Columns, quantizer: QuantizerOf) -> Sums:
        """Find the thresholds of the client."""
        if len(np.unique(x.order)) < len(x.order):
            raise ValueError(
                f"Features must be quantized before they are repeated. {quantizer.name} does not."
            )

        def quantize(values: np.ndarray) -> IntArray:
            given = torch.zeros(len(values), len(source))
            given[:, torch.from_numpy(x.order)] = torch.from_numpy(values)
            return quantizer(x.compute(given))[0]

        n = len(x.order)
        _, scale = quantizer(x.compute(torch.zeros(1, len(source))))
        thresholds, first = find_thresholds(quantize, n, quantizer.name)
        return self.assembly.add_input(source.feature[x.order], thresholds, first, scale)

    def negative(self, x: Signal | Total, name: str) -> Signal | Total:
        """Change signs."""
        if isinstance(x, Total):
            terms = tuple(self.negative(term, name) for term in x.terms)
            return Total(terms, x.shape, x.owner)  # type: ignore[arg-type]
        one = np.ones(())
        return x.mapped(lambda values: -values, name, (-one, 0 * one))

    def add(self, a: Signal | Total, b: Signal | Total, name: str) -> Signal | Total:
        """Add tensors of one shape, as a Total if their units differ."""
        if a.shape != b.shape:
            raise ValueError(f"Tensors that are added must have one shape. {name} does not.")
        if isinstance(a, Signal) and isinstance(b, Signal):
            (left, bias), (right, other) = self.affine(a, name), self.affine(b, name)
            try:
                sums = left.plus(right, name)
            except ValueError:
                return Total((a, b), a.shape, name)
            signal = Signal.of(sums, a.shape, name)
            bias = bias + other
            return signal.plus(bias.reshape(a.shape), name) if bias.any() else signal
        terms = [t for part in (a, b) for t in (part.terms if isinstance(part, Total) else (part,))]
        return Total(tuple(terms), a.shape, name)

    def concatenate(self, signals: list[Signal], dim: int, name: str) -> Signal:
        """Put tensors behind one another, along a dimension of the batch."""
        if dim % (len(signals[0].shape) + 1) == 0:
            raise ValueError(f"Rows must stay apart. {name} concatenates rows: use dim=1.")
        return joined(signals, dim, name)


def mixed_units(signals: list[Any]) -> ValueError:
    """Make the error for a sum of several units that is no output."""
    total = next(signal for signal in signals if isinstance(signal, Total))
    return ValueError(
        f"Only an output can add sums of different scales, as {total.owner} does. Quantize both "
        "with one and the same QuantIdentity before they are added, or with quantizers whose "
        "scales are powers of two."
    )
