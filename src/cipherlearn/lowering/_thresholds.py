"""Thresholds of the client: where, among all floats, the module's input quantizer steps up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cipherlearn.program._values import FloatArray, IntArray

__all__ = ["find_thresholds"]

# Largest number of steps of an input code, and of values of a block.
_MAX_STEPS, _BLOCK_VALUES = 2**12, 1 << 20

# Position of infinity when float32 numbers are counted from 0.
_INFINITY = 0x7F800000

Quantize = Callable[[NDArray[np.float32]], IntArray]


def find_thresholds(quantize: Quantize, n: int, name: str) -> tuple[FloatArray, IntArray]:
    """Find the smallest float64 that reaches each integer, once it is cast to float32.

    Parameters
    ----------
    quantize : callable
        Integers, of shape (n_rows, n), of float32 values of the same shape, element by element.
    n : int
        Number of elements.
    name : str
        Name of the quantizer, for messages.

    Returns
    -------
    thresholds : ndarray of shape (n, n_steps)
        Ascending, ending in infinities for elements of fewer steps.
    first : ndarray of shape (n,)
        Integer below all thresholds.

    Raises
    ------
    ValueError
        If the integers do not ascend with the values, or take more than 12 bits.

    Examples
    --------
    >>> import numpy as np
    >>> from cipherlearn.lowering._thresholds import find_thresholds
    >>> thresholds, first = find_thresholds(
    ...     lambda x: np.rint(np.clip(x, -1, 1)).astype(int), 1, "quantizer"
    ... )
    >>> first.tolist(), thresholds.round(3).tolist()
    ([-1], [[-0.5, 0.5]])
    """
    first, last = quantize(_floats(np.array([-_INFINITY, _INFINITY])[:, None].repeat(n, axis=1)))
    n_steps = int((last - first).max())
    if (last < first).any():
        raise _not_ascending(name)
    if n_steps > _MAX_STEPS:
        raise ValueError(
            f"Codes of inputs must have at most {_MAX_STEPS} steps. {name} has {n_steps}. Lower "
            "its bit_width."
        )
    found = np.empty((n_steps, n), dtype=np.int64)
    n_block = max(1, _BLOCK_VALUES // n)
    for start in range(0, n_steps, n_block):
        steps = np.arange(start, min(n_steps, start + n_block))[:, None]
        found[start : start + n_block] = _bisect(quantize, first + 1 + steps)
    found[first + 1 + np.arange(n_steps)[:, None] > last] = _INFINITY + 1
    _check(quantize, found, first, name)
    return _as_float64(found).T, first


def _bisect(quantize: Quantize, levels: IntArray) -> IntArray:
    """Find the position of the smallest float32 whose integer reaches each level."""
    low, high = np.full(levels.shape, -_INFINITY), np.full(levels.shape, _INFINITY)
    while (high - low > 1).any():
        middle = (low + high) // 2
        reached = quantize(_floats(middle)) >= levels
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return high


def _check(quantize: Quantize, found: IntArray, first: IntArray, name: str) -> None:
    """Raise ValueError unless counting thresholds gives the integers of many floats."""
    n_steps, n = found.shape
    some = np.linspace(-_INFINITY, _INFINITY, 513).astype(np.int64)
    near = found[:: max(1, n_steps // 64)].clip(-_INFINITY + 2, _INFINITY - 2)
    between = (found[1:] // 2 + found[:-1] // 2)[:: max(1, n_steps // 64)]
    rows = [np.repeat(some[:, None], n, axis=1), near - 1, near + 1, between.clip(max=_INFINITY)]
    positions = np.concatenate(rows)
    for at, integers in zip(positions, quantize(_floats(positions)), strict=True):
        if (integers != first + (found <= at).sum(axis=0)).any():
            raise _not_ascending(name)


def _not_ascending(name: str) -> ValueError:
    return ValueError(
        f"Codes of inputs must ascend with the features. Those of {name} do not: an operation "
        "before it is not monotonic. Move it behind the quantizer, or into preprocessing."
    )


def _floats(positions: IntArray) -> NDArray[np.float32]:
    """Return the float32 numbers at positions, counted from 0 in both directions."""
    magnitude = np.abs(positions).astype(np.uint32)
    bits = np.where(positions < 0, magnitude | np.uint32(1 << 31), magnitude)
    return bits.astype(np.uint32).view(np.float32)


def _as_float64(positions: IntArray) -> FloatArray:
    """Return the smallest float64 that is cast to float32 numbers at positions or beyond."""
    is_some = positions <= _INFINITY
    here = np.where(is_some, positions, 0)
    ends = []
    for at in (here - 1, here):
        # Halfway to infinity is halfway to the number that would follow.
        inner = np.clip(at, 1 - _INFINITY, _INFINITY - 1)
        value = _floats(inner).astype(np.float64)
        ends.append(np.where(at == inner, value, np.sign(at) * 2.0**128))
    middle = (ends[0] + ends[1]) / 2
    # Halves are cast to the even neighbour.
    threshold: FloatArray = np.where(here % 2 == 0, middle, np.nextafter(middle, np.inf))
    return np.where(is_some, threshold, np.inf)
