"""Principal components of the features, as sums of integers that no rounding can change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cipherlearn.program._values import FloatArray, Immutable, IntArray, freeze

__all__ = ["LARGEST_POSITION", "LARGEST_WEIGHTS", "Components"]

# A feature's position is an integer of 24 bits and a sign, and the weights of a component add up
# to 28 bits. So every sum is below 2**53, float64 holds it exactly, and neither the order of the
# terms nor the machine can change it: the client gets the codes that training saw.
LARGEST_POSITION, LARGEST_WEIGHTS = 2**24, 2**28


@dataclass(frozen=True, eq=False)
class Components(Immutable):
    """Weighted sums of features, which codes read as if they were features.

    The client computes them in the clear: ``position = rint(x * factor - shift)``, clipped to
    plus or minus ``2**24``, and ``component = weights @ position``.

    Parameters
    ----------
    factor, shift : ndarray of shape (n_features,), float64
        What turns a feature into its position.
    weights : ndarray of shape (n_components, n_features), int64
        Their magnitudes add up to at most ``2**28`` in each row.

    Examples
    --------
    >>> from cipherlearn.program._components import Components
    >>> Components([4.0, 2.0], [0.0, 1.0], [[1, -1]])([[1.0, 3.0], [0.1, float("inf")]])
    array([[-1.0000000e+00],
           [-1.6777216e+07]])
    """

    factor: FloatArray
    shift: FloatArray
    weights: IntArray

    def __post_init__(self) -> None:
        freeze(self, "factor", np.float64, 1)
        freeze(self, "shift", np.float64, 1)
        freeze(self, "weights", np.int64, 2)
        if self.weights.shape[1:] != self.factor.shape or self.factor.shape != self.shift.shape:
            raise ValueError(
                "Components need a factor, a shift and a column of weights for each feature. Got "
                f"the shapes {self.factor.shape}, {self.shift.shape} and {self.weights.shape}."
            )
        if not (np.isfinite(self.factor).all() and (self.factor > 0).all()):
            raise ValueError("Factors of components must be positive and finite.")
        if not np.isfinite(self.shift).all():
            raise ValueError("Shifts of components must be finite.")
        # Each by itself first: magnitudes that overflow could add up to less.
        if (abs(self.weights.astype(np.float64)) > LARGEST_WEIGHTS).any() or (
            abs(self.weights).sum(axis=1) > LARGEST_WEIGHTS
        ).any():
            raise ValueError(
                f"The weights of a component must add up to at most {LARGEST_WEIGHTS} in magnitude."
            )

    def __call__(self, X: FloatArray) -> FloatArray:
        with np.errstate(over="ignore"):
            positions = np.asarray(X, dtype=np.float64) * self.factor
            positions -= self.shift
        np.clip(positions, -LARGEST_POSITION, LARGEST_POSITION, out=positions)
        product: FloatArray = np.rint(positions, out=positions) @ self.weights.T.astype(np.float64)
        return product
