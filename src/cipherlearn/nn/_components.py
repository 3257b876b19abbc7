"""Principal components of the features, which the client computes before it encodes them.

A hidden neuron reads few codes, so that its sum is cheap to bootstrap. Where many features say
little each and much together, a component says it in one feature.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from torch import Tensor, nn

from cipherlearn._checks import check_int
from cipherlearn._features import dense_rows
from cipherlearn._samples import sample_rows
from cipherlearn.program._components import LARGEST_POSITION, LARGEST_WEIGHTS

__all__ = ["MOST_FEATURES", "PrincipalComponents"]

# Of more, the axes would take too long.
MOST_FEATURES = 2000

# Components are learned from at most about this many values and rows. A feature's mean and standard
# deviation are those of its values clipped to these quantiles, so that outliers do not rule them.
_VALUES, _ROWS, _CENTRAL = 20_000_000, 20_000, (0.01, 0.99)

# Standard deviations that a position spans to each side, and the smallest of a component, by which
# it is above the rounding of positions.
_SPAN, _SMALLEST = 16, 1e-5


class PrincipalComponents(nn.Module):
    """Append the principal components of standardized features to the features.

    They are computed on integers, as :class:`cipherlearn.program._components.Components` does it,
    to the last bit.

    Parameters
    ----------
    n_features : int
        Number of features.
    n_components : int
        Number of components, of which there are at most as many as features. Those that the data
        does not have are always 0, and so not encoded.

    Raises
    ------
    ValueError
        If there are components of more than 2000 features, whose axes would take too long.
    """

    factor: Tensor
    shift: Tensor
    weights: Tensor

    def __init__(self, n_features: int, n_components: int) -> None:
        super().__init__()
        n_components = min(check_int("n_components", n_components, 0), n_features)
        if n_components and n_features > MOST_FEATURES:
            raise ValueError(
                f"n_components must be 0 for more than {MOST_FEATURES} features. Got "
                f"{n_components} for {n_features}. Use TruncatedSVD or PCA before the network."
            )
        zeros = torch.zeros(n_features, dtype=torch.float64)
        self.register_buffer("factor", torch.ones_like(zeros))
        self.register_buffer("shift", zeros)
        self.register_buffer("weights", zeros.repeat(n_components, 1))

    @torch.no_grad()
    def fit(self, X: Any) -> None:
        """Learn the components of rows, a tensor or a sparse matrix."""
        self.weights.zero_()
        if len(self.weights) == 0 or X.shape[0] < 2:
            return
        rows = sample_rows(X.shape[0], min(_ROWS, _VALUES // X.shape[1] + 1))
        sample = torch.as_tensor(dense_rows(X, rows)).cpu().numpy().astype(np.float64)
        # A feature may be constant, or too large to be squared. It then takes no part.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            low, high = np.quantile(sample, _CENTRAL, axis=0)
            # All of a feature's values, if it hardly varies between the quantiles.
            central = np.where(low < high, sample.clip(low, high), sample)
            mean, std = central.mean(axis=0), central.std(axis=0)
            factor = LARGEST_POSITION / _SPAN / std
            shift = mean * factor
        usable = (std > 0) & np.isfinite(factor) & np.isfinite(shift) & (factor > 0)
        factor, shift = np.where(usable, factor, 1.0), np.where(usable, shift, 0.0)
        self.factor.copy_(torch.from_numpy(factor))
        self.shift.copy_(torch.from_numpy(shift))
        positions = self.positions(torch.from_numpy(sample).to(self.factor.device)).cpu().numpy()
        weights = _axes(np.where(usable, positions, 0.0), len(self.weights))
        self.weights[: len(weights)] = torch.from_numpy(weights)

    def positions(self, X: Tensor) -> Tensor:
        """Standardized features as integers."""
        positions = (X.to(self.factor.dtype) * self.factor).sub_(self.shift)
        return positions.clamp_(-LARGEST_POSITION, LARGEST_POSITION).round_()

    def components(self, X: Tensor) -> Tensor:
        """Components, as integers, of shape (n_samples, n_components)."""
        return self.positions(X) @ self.weights.T

    def forward(self, X: Tensor) -> Tensor:
        return torch.cat([X, self.components(X)], dim=1) if len(self.weights) else X


def _axes(positions: NDArray[np.float64], n_components: int) -> NDArray[np.float64]:
    """Return the integer weights of the components that rows have, the largest first."""
    n_features = positions.shape[1]
    largest = [max(0, n_features - n_components), n_features - 1]
    variances, columns = eigh(np.atleast_2d(np.cov(positions.T)), subset_by_index=largest)
    smallest = _SMALLEST * LARGEST_POSITION / _SPAN
    axes = columns.T[variances > smallest**2][::-1]
    # Rounding adds at most half to each.
    limit = LARGEST_WEIGHTS - axes.shape[1]
    weights: NDArray[np.float64] = np.rint(axes * (limit / abs(axes).sum(axis=1, keepdims=True)))
    return weights
