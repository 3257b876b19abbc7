"""Ranges of integers and immutable arrays, which the parts of a program are made of."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FloatArray",
    "Immutable",
    "IntArray",
    "IntegerRange",
    "count_reached",
    "freeze",
    "frozen",
]

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class IntegerRange:
    """Every integer from ``low`` to ``high``, both included.

    Examples
    --------
    >>> from cipherlearn.program._values import IntegerRange
    >>> IntegerRange(-30, 33).n_bits
    6
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"An integer range needs low <= high. Got {self.low} > {self.high}.")

    @property
    def n_bits(self) -> int:
        """Bits that hold the range once a clear constant has moved ``low`` to 0."""
        return max(1, (self.high - self.low).bit_length())


class Immutable:
    """Base of values whose copies and pickles have checked, read-only arrays too."""

    def __reduce__(self) -> tuple[Any, ...]:
        names = (field.name for field in fields(self))  # type: ignore[arg-type]
        return type(self), tuple(getattr(self, name) for name in names)


def freeze(instance: object, name: str, dtype: type, n_dimensions: int) -> None:
    """Replace an array field by an immutable copy of the right type and rank."""
    object.__setattr__(instance, name, frozen(name, getattr(instance, name), dtype, n_dimensions))


def frozen(name: str, value: object, dtype: type, n_dimensions: int) -> NDArray[Any]:
    """Copy an array of the right type and rank to one that cannot be written."""
    given = np.asarray(value)
    if np.issubdtype(dtype, np.integer) and given.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold integers. Got {given.dtype}.")
    array: NDArray[Any] = np.array(given, dtype=dtype)
    if given.dtype.kind == "u" and (array < 0).any():
        raise ValueError(f"{name} must fit {np.dtype(dtype)}. Got {given.max()}.")
    if array.ndim != n_dimensions:
        raise ValueError(f"{name} must have {n_dimensions} dimension(s). Got {array.ndim}.")
    array.setflags(write=False)
    return array


def count_reached(values: NDArray[Any], thresholds: NDArray[Any]) -> NDArray[Any]:
    """Count the thresholds of shape (n_steps, ...) that the values of shape (..., n) reach."""
    dtype = np.uint8 if len(thresholds) < 256 else np.int64
    counts: NDArray[Any] = np.zeros((*thresholds.shape[1:], values.shape[-1]), dtype=dtype)
    for threshold in thresholds:
        counts += (values >= threshold[..., None]).view(np.uint8)
    return counts
