"""Features to integer codes: the client's first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn._features import as_floats, dense_rows, is_sparse
from cipherlearn.program._components import Components
from cipherlearn.program._values import FloatArray, Immutable, IntArray, count_reached, freeze

__all__ = ["BLOCK_ROWS", "InputQuantizer"]

# Rows per block of the clear execution: bounds its memory whatever the input. NumPy buffers
# broadcast operands of fewer than 8192, which is slow.
BLOCK_ROWS = 10_000

# Largest number of values of a block that is made of sparse rows, and of codes of any block.
_BLOCK_VALUES, _BLOCK_CODES = 4_000_000, 1 << 24


@dataclass(frozen=True, eq=False)
class InputQuantizer(Immutable):
    """Features to integer codes, evaluated by the client in the clear.

    A code counts the thresholds that its feature reaches. Several codes may read the same
    feature, each with thresholds of its own.

    Parameters
    ----------
    n_features : int
        Number of features of a row.
    feature : ndarray of shape (n_codes,), int64
        Feature that each code reads. Numbers from ``n_features`` on are those of components.
    thresholds : ndarray of shape (n_codes, n_levels), float64
        ``code[i] = sum(x[feature[i]] >= thresholds[i])``. Each row ascends, and may end in
        infinities, which count for nothing.
    components : Components, default=None
        Sums of features, which codes may read too.

    Examples
    --------
    >>> from cipherlearn.program._encoder import InputQuantizer
    >>> quantizer = InputQuantizer(2, [0, 1], [[1.0, 2.0, 3.0], [0.5, float("inf"), float("inf")]])
    >>> quantizer([[2.5, 0.0], [0.0, 7.0]])
    array([[2, 0],
           [0, 1]])
    """

    n_features: int
    feature: IntArray
    thresholds: FloatArray
    components: Components | None = None

    def __post_init__(self) -> None:
        freeze(self, "feature", np.int64, 1)
        freeze(self, "thresholds", np.float64, 2)
        if len(self.feature) == 0 or len(self.feature) != len(self.thresholds):
            raise ValueError(
                "A quantizer needs at least one code, and a row of thresholds for each. "
                f"Got {len(self.feature)} codes and {len(self.thresholds)} rows."
            )
        if self.components is not None and len(self.components.factor) != self.n_features:
            raise ValueError(f"Components must be those of {self.n_features} features.")
        if self.n_components > len(self.feature):
            raise ValueError(
                "A quantizer has at most as many components as codes. "
                f"Got {self.n_components} and {len(self.feature)}."
            )
        n_columns = self.n_features + self.n_components
        if self.feature.min() < 0 or self.feature.max() >= n_columns:
            raise ValueError(f"Codes must read features and components from 0 to {n_columns - 1}.")
        following = self.thresholds[:, 1:]
        if not ((self.thresholds > -np.inf).all() and (self.thresholds[:, :-1] <= following).all()):
            raise ValueError("Thresholds must be numbers above -inf that ascend in each row.")

    @classmethod
    def from_arrays(
        cls, n_features: int, n_components: int, array: Callable[[str], NDArray[Any]]
    ) -> InputQuantizer:
        """Make the quantizer whose arrays a file holds by the names that :meth:`arrays` gives."""
        components = None
        if n_components:
            components = Components(*(array(f"component_{f.name}") for f in fields(Components)))
        quantizer = cls(n_features, array("input_feature"), array("input_thresholds"), components)
        if quantizer.n_components != n_components:
            raise ValueError(f"Got {quantizer.n_components} components instead of {n_components}.")
        return quantizer

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Give the arrays by the names that they have in files."""
        arrays: dict[str, NDArray[Any]] = {
            "input_feature": self.feature,
            "input_thresholds": self.thresholds,
        }
        if self.components is not None:
            for field in fields(Components):
                arrays[f"component_{field.name}"] = getattr(self.components, field.name)
        return arrays

    @property
    def n_components(self) -> int:
        """Number of sums of features that codes may read."""
        return 0 if self.components is None else len(self.components.weights)

    @cached_property
    def largest(self) -> IntArray:
        """Largest value that each code can take."""
        largest: IntArray = np.isfinite(self.thresholds).sum(axis=1)
        largest.setflags(write=False)
        return largest

    @property
    def n_bits(self) -> int:
        """Bits that hold every code."""
        return max(1, int(self.largest.max()).bit_length())

    def __call__(self, X: Any) -> IntArray:
        X = self.check(X)
        codes = np.empty((X.shape[0], len(self.feature)), dtype=np.int64)
        for block, counts in self.blocks(X, np.min_scalar_type(self.thresholds.shape[1])):
            codes[block] = counts.T
        return codes

    def random_codes(self, n_rows: int, rng: np.random.Generator) -> IntArray:
        """Draw codes of random rows, whose features lie in each interval with equal probability.

        So do components, which are drawn by themselves.
        """
        columns = np.zeros((n_rows, self.n_features + self.n_components))
        for feature in np.unique(self.feature):
            thresholds = self.thresholds[self.feature == feature]
            values = np.append(thresholds[np.isfinite(thresholds)], -np.inf)
            columns[:, feature] = rng.choice(np.unique(values), n_rows)
        return self._count(columns, np.int64).T

    def check_codes(self, codes: IntArray) -> IntArray:
        """Return codes as an array, or raise ValueError if the quantizer cannot give them."""
        codes, n_codes = np.asarray(codes), len(self.feature)
        if codes.ndim != 2 or codes.shape[1] != n_codes or codes.dtype.kind not in "iu":
            raise ValueError(
                f"Codes must be integers of shape (n_rows, {n_codes}). "
                f"Got {codes.dtype} of shape {codes.shape}. Make them with program.quantize(X)."
            )
        if (codes < 0).any() or (codes > self.largest).any():
            raise ValueError(
                f"Codes must be between 0 and {self.largest.max()}, or less for codes of fewer "
                f"thresholds. Got {codes.min()} to {codes.max()}. "
                "Make them with program.quantize(X)."
            )
        return codes

    def check(self, X: Any) -> Any:
        """Return features as floats, dense or in CSR, or raise ValueError if they are invalid."""
        X = as_floats(X)
        n_nan = np.isnan(X.data if is_sparse(X) else X).sum()
        if X.ndim != 2 or X.shape[1] != self.n_features or n_nan:
            raise ValueError(
                f"Features must be numbers of shape (n_rows, {self.n_features}), without NaN. "
                f"Got shape {X.shape} with {n_nan} NaN."
            )
        return X

    def blocks(
        self, X: Any, dtype: np.dtype[Any] | type = np.int64
    ) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yield slices of rows and their codes, transposed, for checked features."""
        quantizer = self
        n_block = min(BLOCK_ROWS, max(1, _BLOCK_CODES // len(self.feature)))
        if is_sparse(X):
            # Of some thousand features few may be read.
            read, quantizer = self._of_read_features
            X = X[:, read]
            n_block = min(n_block, max(1, _BLOCK_VALUES // max(1, len(read))))
        for start in range(0, X.shape[0], n_block):
            block = slice(start, start + n_block)
            yield block, quantizer.count(dense_rows(X, block), dtype)

    @cached_property
    def _of_read_features(self) -> tuple[IntArray, InputQuantizer]:
        """The features that some code or component reads, and the quantizer of those alone."""
        read = np.unique(self.feature[self.feature < self.n_features])
        components = self.components
        if components is not None:
            read = np.union1d(read, np.flatnonzero(components.weights.any(axis=0)))
            components = Components(
                components.factor[read], components.shift[read], components.weights[:, read]
            )
        # Components follow the features, of which there are fewer now.
        numbers = np.append(read, self.n_features + np.arange(self.n_components))
        feature = np.searchsorted(numbers, self.feature)
        return read, InputQuantizer(len(read), feature, self.thresholds, components)

    def take(self, codes: NDArray[np.bool_]) -> InputQuantizer:
        """Keep some codes, and the components that they read."""
        feature, components = self.feature[codes], self.components
        if components is not None:
            read = np.unique(feature[feature >= self.n_features]) - self.n_features
            components = replace(components, weights=components.weights[read])
            numbers = np.append(np.arange(self.n_features), self.n_features + read)
            feature = np.searchsorted(numbers, feature)
        return InputQuantizer(
            self.n_features,
            feature,
            self.thresholds[codes],
            components if components is not None and len(components.weights) else None,
        )

    def count(self, X: FloatArray, dtype: np.dtype[Any] | type = np.int64) -> NDArray[Any]:
        """Codes of checked features, transposed: of shape (n_codes, n_rows)."""
        if self.components is not None:
            X = np.concatenate([X, self.components(X)], axis=1)
        return self._count(X, dtype)

    def _count(self, X: FloatArray, dtype: np.dtype[Any] | type) -> NDArray[Any]:
        """Codes of features and components, transposed."""
        codes: NDArray[Any] = np.empty((len(self.feature), len(X)), dtype=dtype)
        for features, rows, thresholds in self._runs:
            codes[rows] = count_reached(X.T[features, None, :], thresholds)
        return codes

    @cached_property
    def _runs(self) -> list[tuple[IntArray, IntArray, FloatArray]]:
        """Runs of codes that read one feature: features, codes and thresholds, by run length."""
        # Not even an infinite feature reaches NaN.
        thresholds = np.where(np.isfinite(self.thresholds), self.thresholds, np.nan).T.copy()
        starts = np.flatnonzero(np.diff(self.feature, prepend=-1))
        lengths = np.diff(starts, append=len(self.feature))
        runs = []
        for length in np.unique(lengths):
            rows = starts[lengths == length, None] + np.arange(length)
            levels = int(self.largest[rows].max())
            runs.append((self.feature[rows[:, 0]], rows, thresholds[:levels, rows]))
        return runs
