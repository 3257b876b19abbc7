"""Encoding of features as the integer codes that the first layer sums.

The client encodes before it encrypts, so nothing here costs anything on ciphertexts. What costs
is the span of a sum, which grows with the largest code. So a feature is not one wide code but
several narrow ones, a *thermometer*: together they tell as many values apart as they have
thresholds, and a neuron spends its span on those that matter to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cipherlearn._checks import check_int
from cipherlearn._features import dense_rows, is_sparse
from cipherlearn._progress import progress_bar
from cipherlearn._samples import sample_rows
from cipherlearn.nn._block import Codes
from cipherlearn.nn._components import PrincipalComponents

__all__ = [
    "PLACEMENTS",
    "InputEncoder",
    "fit_encoders",
    "n_codes_per_feature",
    "place_thresholds",
]

PLACEMENTS = ("mixed", "uniform", "quantile")

# Thresholds that "auto" aims at in all, and the bounds for one feature. Measured by
# benchmarks/accuracy.py: fewer lose accuracy on few features, more gain nothing.
_THRESHOLDS, _FEWEST, _MOST = 576, 6, 48

# The mean and spread of codes are estimated on at most about this many values.
_CENTERING_VALUES = 1_000_000

# Rows whose components are computed at once.
_BLOCK_ROWS = 4096

# Uniform thresholds span this central part of a feature's values.
_CENTRAL = 0.96


def n_codes_per_feature(n_features: int, n_bits: int) -> int:
    """Choose how many codes encode a feature: more for few features than for many.

    Examples
    --------
    >>> from cipherlearn.nn._encoder import n_codes_per_feature
    >>> [n_codes_per_feature(n_features, n_bits=2) for n_features in (2, 30, 64, 1000)]
    [16, 7, 3, 2]
    """
    n_thresholds = min(_MOST, max(_FEWEST, _THRESHOLDS // n_features))
    return -(-n_thresholds // (2**n_bits - 1))


def place_thresholds(values: NDArray, n_thresholds: int, placement: str) -> NDArray:
    """Choose ascending thresholds that tell the values of a feature apart.

    Parameters
    ----------
    values : ndarray of shape (n_samples,)
        The feature in the training data.
    n_thresholds : int
        Largest number of thresholds. A feature with fewer gaps between its values has one in
        the middle of each, and loses nothing.
    placement : {"mixed", "uniform", "quantile"}
        "uniform" spaces them evenly over the central 96 % of the values, "quantile" puts equally
        many values between them, and "mixed" takes the mean of the two.

    Returns
    -------
    ndarray of shape (at most n_thresholds,)

    Examples
    --------
    >>> import numpy as np
    >>> from cipherlearn.nn._encoder import place_thresholds
    >>> place_thresholds(np.array([0.0, 0.0, 1.0, 3.0]), 3, "mixed")
    array([0.5, 2. ])
    >>> place_thresholds(np.arange(101.0), 3, "uniform")
    array([18., 50., 82.])
    """
    distinct = np.unique(values)
    if len(distinct) <= n_thresholds + 1:
        middle = distinct[:-1] / 2 + distinct[1:] / 2
        return np.where(middle > distinct[:-1], middle, distinct[1:])
    tail = (1 - _CENTRAL) / 2
    low, high = np.quantile(values, [tail, 1 - tail], method="inverted_cdf")
    if low == high:
        low, high = distinct[0], distinct[-1]
    fraction = (np.arange(n_thresholds) + 0.5) / n_thresholds
    uniform = low * (1 - fraction) + high * fraction
    fraction = np.arange(1, n_thresholds + 1) / (n_thresholds + 1)
    quantile = np.quantile(values, fraction, method="inverted_cdf")
    thresholds = {
        "uniform": uniform,
        "quantile": quantile,
        "mixed": uniform / 2 + quantile / 2,
    }[placement]
    # Rounding may have swapped neighbours.
    return np.maximum.accumulate(thresholds)


class InputEncoder(nn.Module):
    """Encode each feature as a thermometer of codes.

    The thresholds of a feature are dealt out, in ascending order, to its codes. A code counts
    those of its thresholds that the feature reaches. The output is the codes or, as long as the
    network is float, the codes centred and scaled.

    Parameters
    ----------
    n_features : int
        Number of features, components included.
    n_bits : int
        Bit-width of a code.
    n_codes : int or "auto"
        Codes per feature. "auto" takes those of :func:`n_codes_per_feature`.
    placement : {"mixed", "uniform", "quantile"}
        Where :func:`fit_encoders` puts the thresholds, as in :func:`place_thresholds`.

    Attributes
    ----------
    largest : Tensor of shape (n_features * n_codes,)
        Largest value of each code: 0 where the feature has no thresholds left for it.
    """

    thresholds: Tensor
    largest: Tensor
    before: Tensor
    center: Tensor
    spread: Tensor
    fitted: Tensor
    quantized: Tensor

    def __init__(self, n_features: int, n_bits: int, n_codes: int | str, placement: str) -> None:
        super().__init__()
        if n_codes == "auto":
            n_codes = n_codes_per_feature(n_features, n_bits)
        n_codes = check_int('n_codes_per_feature, unless "auto",', n_codes, 1)
        if placement not in PLACEMENTS:
            raise ValueError(f"threshold_placement must be one of {PLACEMENTS}. Got {placement!r}.")
        self.n_features = n_features
        self.max_code = 2**n_bits - 1
        self.n_codes = n_codes
        self.placement = placement
        # Thresholds that are not there are infinite. float64 keeps the information of raw data.
        infinite = torch.full((n_features, n_codes * self.max_code), torch.inf, dtype=torch.float64)
        self.register_buffer("thresholds", infinite)
        self.register_buffer("largest", torch.zeros(n_features * n_codes))
        self.register_buffer("before", torch.arange(n_codes) * float(self.max_code))
        self.register_buffer("center", torch.zeros(n_features * n_codes))
        self.register_buffer("spread", torch.ones(n_features * n_codes))
        self.register_buffer("fitted", torch.tensor(False))
        self.register_buffer("quantized", torch.tensor(False))

    def _keep(self, placed: NDArray[np.float64], X: Any, components: PrincipalComponents) -> None:
        """Take thresholds, and learn the mean and spread of their codes."""
        self.thresholds.copy_(torch.from_numpy(placed))
        finite = self.thresholds.isfinite().reshape(-1, self.max_code)
        self.largest.copy_(finite.sum(dim=1))
        self.fitted.fill_(True)
        rows = sample_rows(X.shape[0], _CENTERING_VALUES // self.largest.numel() + 1)
        features = torch.as_tensor(dense_rows(X, rows), device=self.thresholds.device)
        codes = self.codes(components(features))
        self.center.copy_(codes.mean(dim=0))
        spread = codes.std(dim=0, unbiased=False)
        self.spread.copy_(torch.where(spread > 0, spread, torch.ones_like(spread)))

    def codes(self, X: Tensor) -> Tensor:
        """Integers, as floats, of shape (n_samples, n_features * n_codes)."""
        if not self.fitted and not torch.onnx.is_in_onnx_export():
            raise RuntimeError(
                "The network has not learned yet how to encode its inputs. Call fit_encoder(X) "
                "with the training data first."
            )
        features = X.to(self.thresholds.dtype)
        if self.max_code == 1:
            # Each threshold is a code.
            reached = features[:, :, None] >= self.thresholds
            return reached.flatten(start_dim=1).to(self.before.dtype)
        if torch.onnx.is_in_onnx_export():
            # ONNX has no searchsorted.
            reached = (features[:, :, None] >= self.thresholds).sum(dim=2)
        else:
            columns = features.T.contiguous()
            reached = torch.searchsorted(self.thresholds, columns, right=True, out_int32=True).T
        # Deal a feature's number of reached thresholds out to its codes.
        codes = reached.to(self.before.dtype).contiguous()[:, :, None] - self.before
        return codes.clamp_(min=0).flatten(start_dim=1).minimum(self.largest)

    @torch.no_grad()
    def calibrate(self, X: Tensor) -> Codes:
        """Give plain codes from now on, and return those of rows, with what they stood for."""
        codes = Codes(self.codes(X), -self.center / self.spread, 1 / self.spread)
        self.quantized.fill_(True)
        return codes

    def forward(self, X: Tensor) -> Tensor:
        codes = self.codes(X)
        if torch.onnx.is_in_onnx_export() or self.quantized:
            return codes
        return codes.sub_(self.center).div_(self.spread)


@torch.no_grad()
def fit_encoders(
    encoders: Sequence[InputEncoder],
    components: PrincipalComponents,
    X: Any,
    verbose: bool | int = False,
) -> None:
    """Learn components, and fit encoders of the features and of them.

    Parameters
    ----------
    encoders : sequence of InputEncoder
        Their thresholds are placed, and the mean and spread of each code is learned.
    components : PrincipalComponents
    X : torch.Tensor or sparse matrix of shape (n_samples, n_features)
    verbose : bool or int, default=False
        Whether to show a progress bar over the features and components.
    """
    components.fit(X)
    placed = [np.full(encoder.thresholds.shape, np.inf) for encoder in encoders]
    n_few = 1 + min(rows.shape[1] for rows in placed)
    with progress_bar(len(placed[0]), "Placing thresholds", "feature", verbose) as progress:
        for i, column in enumerate(chain(_columns(X, n_few), _components(X, components))):
            values = np.sort(column)
            for encoder, rows in zip(encoders, placed, strict=True):
                thresholds = place_thresholds(values, rows.shape[1], encoder.placement)
                rows[i, : len(thresholds)] = thresholds
            progress.update()
    for encoder, rows in zip(encoders, placed, strict=True):
        encoder._keep(rows, X, components)


def _components(X: Any, components: PrincipalComponents) -> Iterator[NDArray[np.float64]]:
    """Give the values of each component, in the order of rows."""
    if len(components.weights):
        blocks = []
        for start in range(0, X.shape[0], _BLOCK_ROWS):
            rows = dense_rows(X, slice(start, start + _BLOCK_ROWS))
            features = torch.as_tensor(rows, device=components.weights.device)
            blocks.append(components.components(features).cpu().numpy())
        yield from np.concatenate(blocks).T


def _columns(X: Any, n_few: int) -> Iterator[NDArray[np.float64]]:
    """Give the values of each feature, in any order, each value once if at most ``n_few`` differ.

    Thresholds between few values do not depend on how often each occurs.
    """
    if not is_sparse(X):
        for column in X.cpu().numpy().T:
            yield column.astype(np.float64)
        return
    n_rows = X.shape[0]
    columns = X.tocsc()
    for start, stop in pairwise(columns.indptr):
        stored = columns.data[start:stop].astype(np.float64)
        values = np.unique(stored if len(stored) == n_rows else np.append(stored, 0.0))
        if len(values) > n_few:
            values = np.zeros(n_rows)
            values[: len(stored)] = stored
        yield values
