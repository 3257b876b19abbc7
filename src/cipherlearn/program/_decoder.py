"""Decrypted sums to real outputs: the client's last step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cipherlearn.program._values import Immutable, IntArray, freeze

__all__ = ["OutputScaler"]

# Two integers of a lower magnitude add up to one that int64 holds.
_TOO_LARGE_TERM = 2**62


@dataclass(frozen=True, eq=False)
class OutputScaler(Immutable):
    """Affine map from the last accumulators to real outputs, on the client.

    Computed in float32, as the torch module computes it.

    Parameters
    ----------
    gain, bias : ndarray of shape (n_outputs,), float32
        ``output = (accumulator + offset) * gain + bias``.
    offset : ndarray of shape (n_outputs,), int64, or None
        What neurons that always give the same code would have added. None is 0.

    Raises
    ------
    ValueError
        If an offset, or an accumulator that is scaled, has a magnitude of 2**62 or more.
    OverflowError
        If an output is beyond float32.
    """

    gain: NDArray[np.float32]
    bias: NDArray[np.float32]
    offset: IntArray | None = None

    def __post_init__(self) -> None:
        freeze(self, "gain", np.float32, 1)
        freeze(self, "bias", np.float32, 1)
        if self.offset is None:
            object.__setattr__(self, "offset", np.zeros(len(self.gain), dtype=np.int64))
        freeze(self, "offset", np.int64, 1)
        assert self.offset is not None
        if not (np.isfinite(self.gain).all() and np.isfinite(self.bias).all()):
            raise ValueError("Output gains and biases must be finite.")
        if not self.gain.shape == self.bias.shape == self.offset.shape:
            raise ValueError("The output scaler needs one bias and one offset per gain.")
        _check_terms("Offsets", self.offset)

    def __call__(self, accumulators: IntArray) -> NDArray[np.float32]:
        assert self.offset is not None
        accumulators = np.asarray(accumulators)
        _check_terms("Accumulators", accumulators)
        sums = accumulators.astype(np.int64, copy=False) + self.offset
        try:
            with np.errstate(over="raise"):
                return sums.astype(np.float32) * self.gain + self.bias
        except FloatingPointError as error:
            raise OverflowError(
                f"Outputs must fit float32. Sums of {sums.min()} to {sums.max()} with gains of up "
                f"to {np.abs(self.gain).max()} do not."
            ) from error


def _check_terms(what: str, values: NDArray) -> None:
    """Raise ValueError unless values are integers whose sum with another such one cannot wrap."""
    if values.dtype.kind not in "iu":
        raise ValueError(f"{what} must be integers. Got {values.dtype}.")
    if values.dtype.itemsize < 8 or values.size == 0:
        return
    low, high = int(values.min()), int(values.max())
    if low <= -_TOO_LARGE_TERM or high >= _TOO_LARGE_TERM:
        raise ValueError(f"{what} must be below 2**62 in magnitude. Got {low} to {high}.")
