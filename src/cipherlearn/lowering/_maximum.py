"""Maximum of integers by lookups."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cipherlearn.lowering._assembly import Assembly
from cipherlearn.lowering._signals import Sums, weighted
from cipherlearn.program._values import IntArray

__all__ = ["maximum"]

Table = Callable[[IntArray], IntArray]

# Largest number of values of an integer for which two are packed into one sum of 6 bits.
_PACKED = 8


def maximum(
    assembly: Assembly, sums: Sums, read: IntArray, owner: str, shape: tuple[int, ...]
) -> Sums:
    """Take the largest integer of each window.

    Integers of two values take one bootstrap for each window. Others take one less than there are
    integers in a window: of twice their bits up to 3 bits, where two integers are packed into one
    sum. Wider ones take ``max(a, b) = b + max(a - b, 0)``, of one bit more than the integers, and
    each step widens the proven range of the result by as much again.

    Parameters
    ----------
    assembly : Assembly
    sums : Sums
    read : ndarray of shape (n_windows, n_taps)
        Numbers of the sums in each window. -1 stands for none.
    owner : str
    shape : tuple of int
        Shape of what is made, whose elements are the windows.
    """
    first = np.where(read >= 0, read, -1).max(axis=1)
    taps = [sums.take(np.where(tap >= 0, tap, first)) for tap in read.T]
    for tap in taps:
        if (tap.scale != taps[0].scale).any():
            raise ValueError(
                f"Max pooling compares integers of one scale. Those of {owner} differ. Use a "
                "quantizer of one scale before it."
            )
    low = np.min([assembly.ranges(tap)[0] for tap in taps], axis=0)
    span = int((np.max([assembly.ranges(tap)[1] for tap in taps], axis=0) - low).max())
    scale = taps[0].scale

    def look_up(terms: list[tuple[int, Sums]], constant: IntArray, table: Table) -> Sums:
        sums = weighted(terms, constant)
        return assembly.look_up(sums, lambda n: (table(n), scale), owner, shape)

    if span <= 1:
        terms = [(1, tap) for tap in taps]
        return look_up(terms, -len(taps) * low, lambda n: np.minimum(n, 1) + low)

    def larger(a: Sums, b: Sums) -> Sums:
        base = span + 1
        if base <= _PACKED:
            terms = [(base, a), (1, b)]
            # Both count from 0 in what they are packed into.
            return look_up(
                terms, -(base + 1) * low, lambda n: np.maximum(n // base, n % base) + low
            )
        more = look_up([(1, a), (-1, b)], 0 * low, lambda n: np.maximum(n, 0))
        return more.plus(b, owner)

    while len(taps) > 1:
        pairs = [larger(a, b) for a, b in zip(taps[::2], taps[1::2], strict=False)]
        taps = pairs + taps[len(pairs) * 2 :]
    return taps[0]
