"""Tensors of a traced module, as integers of a program and what float32 makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack, vstack
from torch import Tensor

from cipherlearn.program._values import FloatArray, IntArray

__all__ = [
    "BATCH",
    "Columns",
    "Signal",
    "Sums",
    "Total",
    "concatenated",
    "identity",
    "joined",
    "weighted",
]

# Rows of a batch while shapes are traced. No shape in a module is a multiple of it by chance.
BATCH = 13

# Largest factor between scales that are added as integers.
_LARGEST_RATIO = 2**16


@dataclass(frozen=True)
class Columns:
    """Features of a row, in some order."""

    feature: IntArray

    def __len__(self) -> int:
        return len(self.feature)

    def take(self, order: IntArray) -> Columns:
        """Reorder, repeat or drop features."""
        return Columns(self.feature[order])


@dataclass(frozen=True)
class Sums:
    """Integers, as sums of the columns of inputs and lookups, and the unit of each.

    Attributes
    ----------
    weights : csr_array of shape (n, n_columns), int64
    constant : ndarray of shape (n,), int64
    scale : ndarray of shape (n,), float64
        ``scale * integer`` is the real value. Products of two float32 scales fit float64.
    """

    weights: csr_array
    constant: IntArray
    scale: FloatArray

    def __len__(self) -> int:
        return len(self.constant)

    def take(self, order: IntArray) -> Sums:
        """Reorder, repeat or drop integers."""
        return Sums(self.weights[order], self.constant[order], self.scale[order])

    def times(self, matrix: csr_array, owner: str, remedy: str) -> Sums:
        """Multiply by an integer matrix, or raise ValueError if a sum would mix units."""
        factor, scale = _common_unit(self.scale, matrix, owner, remedy)
        scaled = csr_array(matrix.multiply(factor[None, :])).astype(np.int64)
        return Sums(csr_array(scaled @ self.weights), scaled @ self.constant, scale)

    def plus(self, other: Sums, owner: str) -> Sums:
        """Add integers of equal units, or raise ValueError."""
        both = concatenated([self, other])
        assert isinstance(both, Sums)
        return both.times(csr_array(hstack([identity(len(self))] * 2)), owner, _SHARE)


_SHARE = (
    "Quantize both with one and the same QuantIdentity before they meet, or with quantizers whose "
    "scales are powers of two."
)


@dataclass(frozen=True)
class Signal:
    """A tensor of the module, without its batch dimension.

    Attributes
    ----------
    source : Sums or Columns
    shape : tuple of int
    owner : str
        Name of the layer that made the sums.
    pending : callable or None
        Element-wise float32 operations that follow: from ``(rows, len(source))`` to
        ``(rows, *shape)``. ``None`` stands for none.
    order : ndarray of int64
        Element of the source that each element of the tensor depends on.
    gain, bias : ndarray of float64, or None
        The tensor is ``gain * (value of the source) + bias`` if the operations are affine.
    """

    source: Sums | Columns
    shape: tuple[int, ...]
    owner: str
    pending: Callable[[Tensor], Tensor] | None
    order: IntArray
    gain: FloatArray | None
    bias: FloatArray | None

    @classmethod
    def of(cls, source: Sums | Columns, shape: tuple[int, ...], owner: str) -> Signal:
        """Make a tensor that is nothing but its source."""
        n = len(source)
        return cls(source, shape, owner, None, np.arange(n), np.ones(n), np.zeros(n))

    @property
    def is_exact(self) -> bool:
        """Whether it is integers times units, with nothing pending."""
        return self.pending is None and isinstance(self.source, Sums)

    def compute(self, values: Tensor) -> Tensor:
        """Compute the tensor of float32 values of the source, of shape (rows, len(source))."""
        if self.pending is None:
            return values.reshape(len(values), *self.shape)
        return self.pending(values)

    def moved(self, move: Callable[[Tensor], Tensor], what: str) -> Signal:
        """Reshape, reorder, repeat or drop elements, as ``move`` does with a whole batch."""
        n = int(np.prod(self.shape))
        rows = torch.arange(BATCH * n).reshape(BATCH, *self.shape)
        made = move(rows)
        is_whole = made.ndim and len(made) == BATCH
        if not is_whole or (made.reshape(BATCH, -1) // n != torch.arange(BATCH)[:, None]).any():
            raise ValueError(f"Rows must stay apart. {what} mixes or drops rows of the batch.")
        order, shape = made[0].reshape(-1).numpy(), tuple(made.shape[1:])
        if self.pending is None:
            return Signal.of(self.source.take(order), shape, self.owner)
        index, compute = torch.from_numpy(order), self.compute
        return replace(
            self,
            shape=shape,
            pending=lambda v: compute(v).reshape(len(v), -1)[:, index].reshape(len(v), *shape),
            order=self.order[order],
            gain=None if self.gain is None else self.gain[order],
            bias=None if self.bias is None else self.bias[order],
        )

    def mapped(
        self,
        function: Callable[[Tensor], Tensor],
        what: str,
        affine: tuple[NDArray, NDArray] | None = None,
    ) -> Signal:
        """Apply an element-wise function, of gain and bias ``affine`` if it is affine."""
        compute, shape = self.compute, self.shape
        made = function(compute(torch.zeros(1, len(self.source))))
        if tuple(made.shape) != (1, *shape):
            raise ValueError(
                f"An element-wise operation must keep the shape. {what} makes "
                f"{tuple(made.shape[1:])} of {shape}."
            )
        gain = bias = None
        if affine is not None and self.gain is not None and self.bias is not None:
            factor, term = (np.broadcast_to(a, shape).reshape(-1) for a in affine)
            gain, bias = self.gain * factor, self.bias * factor + term
        return replace(self, pending=lambda v: function(compute(v)), gain=gain, bias=bias)

    def plus(self, term: FloatArray, what: str) -> Signal:
        """Add a constant, as float32 adds it."""
        constant = torch.from_numpy(np.ascontiguousarray(term, dtype=np.float32))
        return self.mapped(lambda values: values + constant, what, (np.ones(()), term))


@dataclass(frozen=True)
class Total:
    """A sum of tensors of different units, which only an output can be.

    Attributes
    ----------
    terms : tuple of Signal
    shape : tuple of int
    owner : str
    """

    terms: tuple[Signal, ...]
    shape: tuple[int, ...]
    owner: str


def concatenated(sources: list[Sums] | list[Columns] | list[Sums | Columns]) -> Sums | Columns:
    """Put sources behind one another."""
    if all(isinstance(source, Columns) for source in sources):
        return Columns(np.concatenate([s.feature for s in sources if isinstance(s, Columns)]))
    sums = [source for source in sources if isinstance(source, Sums)]
    if len(sums) < len(sources):
        raise ValueError("Features must be quantized before they meet quantized values.")
    n_columns = max(s.weights.shape[1] for s in sums)
    return Sums(
        csr_array(vstack([_widened(s.weights, n_columns) for s in sums], format="csr")),
        np.concatenate([s.constant for s in sums]),
        np.concatenate([s.scale for s in sums]),
    )


def joined(signals: list[Signal], dim: int, what: str) -> Signal:
    """Concatenate tensors along a dimension of the batch's shape."""
    sizes = np.cumsum([0, *(len(s.source) for s in signals)])
    source = concatenated([s.source for s in signals])
    owner = signals[0].owner if len({s.owner for s in signals}) == 1 else what
    n = [int(np.prod(s.shape)) for s in signals]
    starts = np.cumsum([0, *n])

    def meet(tensors: list[Tensor]) -> Tensor:
        return torch.cat(tensors, dim=dim)

    numbers = meet(
        [
            (torch.arange(start, start + size).reshape(1, *s.shape))
            for s, start, size in zip(signals, starts[:-1].tolist(), n, strict=True)
        ]
    )
    shape, place = tuple(numbers.shape[1:]), numbers.reshape(-1).numpy()
    order = np.concatenate([s.order + at for s, at in zip(signals, sizes, strict=False)])[place]
    if all(s.pending is None for s in signals):
        return Signal.of(source.take(order), shape, owner)
    ends = sizes.tolist()

    def compute(values: Tensor) -> Tensor:
        return meet(
            [s.compute(values[:, a:b]) for s, a, b in zip(signals, ends, ends[1:], strict=False)]
        )

    gains, biases = [s.gain for s in signals], [s.bias for s in signals]
    gain = bias = None
    if all(g is not None for g in gains):
        gain = np.concatenate([g for g in gains if g is not None])[place]
        bias = np.concatenate([b for b in biases if b is not None])[place]
    return Signal(source, shape, owner, compute, order, gain, bias)


def identity(n: int) -> csr_array:
    """Make the integer identity matrix."""
    return csr_array((np.ones(n, dtype=np.int64), np.arange(n), np.arange(n + 1)), shape=(n, n))


def weighted(terms: list[tuple[int, Sums]], constant: IntArray) -> Sums:
    """Add up multiples of sums and a constant. Units are left out."""
    n_columns = max(sums.weights.shape[1] for _, sums in terms)
    parts = [_widened(sums.weights * factor, n_columns) for factor, sums in terms]
    weights = parts[0]
    for part in parts[1:]:
        weights = weights + part
    total = sum((sums.constant * factor for factor, sums in terms), constant)
    return Sums(csr_array(weights), total, np.ones(len(constant)))


def _widened(weights: csr_array, n_columns: int) -> csr_array:
    """Add columns of zeros."""
    data = (weights.data, weights.indices, weights.indptr)
    return csr_array(data, shape=(weights.shape[0], n_columns))


def _common_unit(
    scale: FloatArray, matrix: csr_array, owner: str, remedy: str
) -> tuple[IntArray, FloatArray]:
    """Return integer factors of the columns, and the unit of each row's sum."""
    used = np.unique(matrix.indices[matrix.data != 0])
    units = np.unique(scale[used]) if len(used) else np.ones(1)
    ratios = scale / units[0]
    whole = np.rint(ratios)
    is_whole = (ratios[used] == whole[used]).all() and (whole[used] <= _LARGEST_RATIO).all()
    if is_whole:
        factor = np.ones(len(scale), dtype=np.int64)
        factor[used] = whole[used].astype(np.int64)
        return factor, np.full(matrix.shape[0], units[0])
    # Each row may have a unit of its own, as in a depthwise convolution.
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))[matrix.data != 0]
    read = scale[matrix.indices[matrix.data != 0]]
    unit = np.ones(matrix.shape[0])
    unit[rows] = read
    if (read != unit[rows]).any():
        raise ValueError(
            f"A sum of integers must have one scale, or scales that are whole multiples. {owner} "
            f"adds integers of scales from {units[0]:.6g} to {units[-1]:.6g}. {remedy}"
        )
    return np.ones(len(scale), dtype=np.int64), unit
