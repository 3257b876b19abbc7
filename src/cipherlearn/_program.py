"""The exact integer form of a trained network: immutable, without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["InputQuantizer", "IntegerLayer", "IntegerProgram", "IntegerRange", "OutputScaler"]

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

# Rows per block of the clear execution: bounds its memory whatever the input.
_BLOCK_ROWS = 8192


@dataclass(frozen=True)
class IntegerRange:
    """Every integer from ``low`` to ``high``, both included.

    Examples
    --------
    >>> from cipherlearn._program import IntegerRange
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


class _Immutable:
    """Copies and pickles are built, so that their arrays are checked and read-only too."""

    def __reduce__(self):
        return type(self), tuple(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, eq=False)
class InputQuantizer(_Immutable):
    """Features to integer codes, evaluated by the client in the clear.

    A code counts the thresholds that its feature reaches. Several codes may read the same
    feature, each with thresholds of its own.

    Parameters
    ----------
    n_features : int
        Number of features of a row.
    feature : ndarray of shape (n_codes,), int64
        Feature that each code reads.
    thresholds : ndarray of shape (n_codes, n_levels), float64
        ``code[i] = sum(x[feature[i]] >= thresholds[i])``. Each row ascends, and may end in
        infinities, which count for nothing.

    Examples
    --------
    >>> from cipherlearn._program import InputQuantizer
    >>> quantizer = InputQuantizer(2, [0, 1], [[1.0, 2.0, 3.0], [0.5, float("inf"), float("inf")]])
    >>> quantizer([[2.5, 0.0], [0.0, 7.0]])
    array([[2, 0],
           [0, 1]])
    """

    n_features: int
    feature: IntArray
    thresholds: FloatArray

    def __post_init__(self) -> None:
        _freeze(self, "feature", np.int64, 1)
        _freeze(self, "thresholds", np.float64, 2)
        if len(self.feature) == 0 or len(self.feature) != len(self.thresholds):
            raise ValueError(
                "A quantizer needs at least one code, and a row of thresholds for each. "
                f"Got {len(self.feature)} codes and {len(self.thresholds)} rows."
            )
        if self.feature.min() < 0 or self.feature.max() >= self.n_features:
            raise ValueError(f"Codes must read features from 0 to {self.n_features - 1}.")
        following = self.thresholds[:, 1:]
        if not ((self.thresholds > -np.inf).all() and (self.thresholds[:, :-1] <= following).all()):
            raise ValueError("Thresholds must be numbers above -inf that ascend in each row.")

    @cached_property
    def largest(self) -> IntArray:
        """Largest value of each code."""
        largest = np.isfinite(self.thresholds).sum(axis=1)
        largest.setflags(write=False)
        return largest

    @property
    def n_bits(self) -> int:
        """Bits that hold every code."""
        return max(1, int(self.largest.max()).bit_length())

    def __call__(self, X: FloatArray) -> IntArray:
        return self.count(self.check(X)).T.astype(np.int64)

    def check(self, X: FloatArray) -> FloatArray:
        """Return features as floats, or raise ValueError if they are none."""
        X = np.asarray(X, dtype=np.float64)
        if X.ndim != 2 or X.shape[1] != self.n_features or np.isnan(X).any():
            raise ValueError(
                f"Features must be numbers of shape (n_rows, {self.n_features}), without NaN. "
                f"Got shape {X.shape} with {np.isnan(X).sum()} NaN."
            )
        return X

    def count(self, X: FloatArray, dtype: type = np.int64) -> NDArray:
        """Codes of checked features, transposed: of shape (n_codes, n_rows)."""
        columns = np.ascontiguousarray(X.T)
        codes: NDArray = np.empty((len(self.feature), len(X)), dtype=dtype)
        count_dtype = np.uint8 if self.thresholds.shape[1] < 256 else np.int64
        for feature, run, thresholds in self._runs:
            reached = (columns[feature] >= thresholds[:, :, None]).view(np.uint8)
            codes[run] = np.add.reduce(reached, axis=0, dtype=count_dtype)
        return codes

    @cached_property
    def _runs(self) -> list[tuple[int, slice, FloatArray]]:
        """Runs of codes that read the same feature, with their thresholds by level."""
        # Not even an infinite feature reaches NaN.
        thresholds = np.where(np.isfinite(self.thresholds), self.thresholds, np.nan)
        starts = [0, *np.flatnonzero(np.diff(self.feature)) + 1, len(self.feature)]
        return [
            (int(self.feature[a]), slice(a, b), thresholds[a:b, : self.largest[a:b].max()].T.copy())
            for a, b in pairwise(starts)
        ]


@dataclass(frozen=True, eq=False)
class IntegerLayer(_Immutable):
    """Integer matrix product, followed by one lookup table per neuron.

    Parameters
    ----------
    weights : ndarray of shape (n_neurons, n_inputs), int64
    input_low, input_high : ndarray of shape (n_inputs,), int64
        Proven range of every input code.
    tables : ndarray of shape (n_neurons, table_size), int64, or None
        ``tables[j, a - low[j]]`` is the code of neuron ``j`` at accumulator ``a``.
        None for the last layer, whose accumulators are the result.
    """

    weights: IntArray
    input_low: IntArray
    input_high: IntArray
    tables: IntArray | None = None

    def __post_init__(self) -> None:
        _freeze(self, "weights", np.int64, 2)
        _freeze(self, "input_low", np.int64, 1)
        _freeze(self, "input_high", np.int64, 1)
        if not self.input_low.shape == self.input_high.shape == (self.weights.shape[1],):
            raise ValueError("A layer needs one input range per column of its weights.")
        if (self.input_low > self.input_high).any():
            raise ValueError("Input ranges need low <= high.")
        if self._reach() >= 2**53:
            raise ValueError("Sums must stay below 2**53, where float64 holds every integer.")
        if self.tables is not None:
            _freeze(self, "tables", np.int64, 2)
            needed = int((self.high - self.low).max()) + 1
            if len(self.tables) != len(self.weights) or self.tables.shape[1] < needed:
                raise ValueError(
                    "Tables must cover every reachable accumulator: expected "
                    f"({len(self.weights)}, >= {needed}). Got {self.tables.shape}."
                )
            if self.tables.min() < 0:
                raise ValueError(f"Codes in tables start at 0. Got {self.tables.min()}.")

    def _reach(self) -> float:
        """Bound the magnitude of every partial sum, in floats, which cannot wrap."""
        largest = np.maximum(
            np.abs(self.input_low.astype(float)), np.abs(self.input_high.astype(float))
        )
        return float((np.abs(self.weights.astype(float)) @ largest).max())

    @cached_property
    def low(self) -> IntArray:
        """Smallest accumulator of each neuron over every possible input."""
        return self._extreme_sum(self.input_low, self.input_high)

    @cached_property
    def high(self) -> IntArray:
        """Largest accumulator of each neuron over every possible input."""
        return self._extreme_sum(self.input_high, self.input_low)

    def _extreme_sum(self, for_positive: IntArray, for_negative: IntArray) -> IntArray:
        extreme = np.maximum(self.weights, 0) @ for_positive
        extreme += np.minimum(self.weights, 0) @ for_negative
        extreme.setflags(write=False)
        return extreme

    @property
    def accumulators(self) -> list[IntegerRange]:
        """Proven range of each neuron's accumulator."""
        return [
            IntegerRange(low, high)
            for low, high in zip(self.low.tolist(), self.high.tolist(), strict=True)
        ]

    @property
    def n_accum_bits(self) -> int:
        """Bits that hold every accumulator of the layer."""
        return max(r.n_bits for r in self.accumulators)

    @property
    def table_ranges(self) -> list[IntegerRange]:
        """Range of each neuron's output codes, over its reachable accumulators."""
        assert self.tables is not None
        sizes = (self.high - self.low + 1).tolist()
        rows = [row[:size] for row, size in zip(self.tables, sizes, strict=True)]
        return [IntegerRange(int(row.min()), int(row.max())) for row in rows]

    def __call__(self, codes: IntArray) -> IntArray:
        return self.apply(np.asarray(codes).T).astype(np.int64).T

    def apply(self, codes: NDArray) -> NDArray:
        """Compute on transposed codes, with a row per input, in integers that may be floats."""
        # BLAS multiplies floats only, and they are exact on these integers.
        accumulators: NDArray = self._float_weights @ codes.astype(self.exact_float, copy=False)
        if self.tables is None:
            return accumulators
        index = accumulators.astype(np.intp)
        index += (np.arange(len(self.weights)) * self.tables.shape[1] - self.low)[:, None]
        return self._flat_tables.take(index)

    @cached_property
    def _float_weights(self) -> NDArray:
        return self.weights.astype(self.exact_float)

    @cached_property
    def _flat_tables(self) -> NDArray:
        assert self.tables is not None
        return self.tables.ravel().astype(np.float32 if self.tables.max() < 2**24 else np.float64)

    @cached_property
    def exact_float(self) -> type:
        """Narrowest float type that holds every partial sum of the layer exactly."""
        return np.float32 if self._reach() < 2**24 else np.float64


@dataclass(frozen=True, eq=False)
class OutputScaler(_Immutable):
    """Affine map from the last accumulators to real outputs, on the client.

    Computed in float32, as the torch module computes it.

    Parameters
    ----------
    gain, bias : ndarray of shape (n_outputs,), float32
        ``output = (accumulator + offset) * gain + bias``.
    offset : ndarray of shape (n_outputs,), int64, or None
        What neurons that always give the same code would have added. None is 0.
    """

    gain: NDArray[np.float32]
    bias: NDArray[np.float32]
    offset: IntArray | None = None

    def __post_init__(self) -> None:
        _freeze(self, "gain", np.float32, 1)
        _freeze(self, "bias", np.float32, 1)
        if self.offset is None:
            object.__setattr__(self, "offset", np.zeros(len(self.gain), dtype=np.int64))
        _freeze(self, "offset", np.int64, 1)
        assert self.offset is not None
        if not (np.isfinite(self.gain).all() and np.isfinite(self.bias).all()):
            raise ValueError("Output gains and biases must be finite.")
        if not self.gain.shape == self.bias.shape == self.offset.shape:
            raise ValueError("The output scaler needs one bias and one offset per gain.")

    def __call__(self, accumulators: IntArray) -> NDArray[np.float32]:
        assert self.offset is not None
        return (accumulators + self.offset).astype(np.float32) * self.gain + self.bias


@dataclass(frozen=True, eq=False)
class IntegerProgram(_Immutable):
    """A network as the encrypted circuit computes it.

    Parameters
    ----------
    quantizer : InputQuantizer
        Client side: features to codes.
    layers : tuple of IntegerLayer
        Server side. All but the last have tables.
    scaler : OutputScaler
        Client side: accumulators to real outputs.

    Examples
    --------
    >>> import numpy as np
    >>> from cipherlearn import NeuralNetClassifier
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> clf = NeuralNetClassifier(max_epochs=10).fit(X, [0, 0, 1, 1])
    >>> codes = clf.program_.quantize(X)
    >>> codes.min(), codes.max()
    (0, 3)
    """

    quantizer: InputQuantizer
    layers: tuple[IntegerLayer, ...]
    scaler: OutputScaler

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        *hidden, last = self.layers
        if last.tables is not None or any(layer.tables is None for layer in hidden):
            raise ValueError("Every layer but the last needs tables, and the last has none.")
        widths = [self.n_codes, *(len(layer.weights) for layer in self.layers)]
        if [layer.weights.shape[1] for layer in self.layers] != widths[:-1]:
            raise ValueError("Each layer must take as many inputs as the one before it gives.")
        if len(self.scaler.gain) != widths[-1]:
            raise ValueError("The output scaler needs one gain per output.")
        self._check_ranges()

    def _check_ranges(self) -> None:
        """Check that every range a layer assumes of its inputs is proven by what gives them."""
        given = [IntegerRange(0, largest) for largest in self.quantizer.largest.tolist()]
        for layer in self.layers:
            assumed = zip(layer.input_low.tolist(), layer.input_high.tolist(), strict=True)
            for (low, high), proven in zip(assumed, given, strict=True):
                if proven.low < low or proven.high > high:
                    raise ValueError(
                        f"A layer assumes inputs in [{low}, {high}] but may receive "
                        f"[{proven.low}, {proven.high}]."
                    )
            if layer.tables is not None:
                given = layer.table_ranges

    @property
    def n_features(self) -> int:
        """Number of input features."""
        return self.quantizer.n_features

    @property
    def n_codes(self) -> int:
        """Number of integers that a row is encrypted as."""
        return len(self.quantizer.feature)

    @property
    def n_outputs(self) -> int:
        """Number of outputs."""
        return len(self.layers[-1].weights)

    @property
    def n_bootstraps(self) -> int:
        """Table lookups on ciphertexts per row: one per hidden neuron."""
        return sum(len(layer.weights) for layer in self.layers[:-1])

    def quantize(self, X: FloatArray) -> IntArray:
        """Turn features into integer codes of shape (n_samples, n_codes)."""
        return self.quantizer(X)

    def run(self, codes: IntArray) -> IntArray:
        """Compute the last layer's accumulators, of shape (n_samples, n_outputs)."""
        codes = self.check_codes(codes)
        return self._in_blocks(codes, lambda block: block.T)

    def _in_blocks(self, rows: NDArray, to_codes: Callable[[NDArray], NDArray]) -> IntArray:
        result = np.empty((len(rows), self.n_outputs), dtype=np.int64)
        for start in range(0, len(rows), _BLOCK_ROWS):
            values = to_codes(rows[start : start + _BLOCK_ROWS])
            for layer in self.layers:
                values = layer.apply(values)
            result[start : start + _BLOCK_ROWS] = values.T
        return result

    def check_codes(self, codes: IntArray) -> IntArray:
        """Return codes as an array, or raise ValueError unless the quantizer could make them."""
        codes = np.asarray(codes)
        if codes.ndim != 2 or codes.shape[1] != self.n_codes or codes.dtype.kind not in "iu":
            raise ValueError(
                f"Codes must be integers of shape (n_rows, {self.n_codes}). "
                f"Got {codes.dtype} of shape {codes.shape}. Make them with program.quantize(X)."
            )
        if (codes < 0).any() or (codes > self.quantizer.largest).any():
            raise ValueError(
                f"Codes must be between 0 and {self.quantizer.largest.max()}, or less for codes of "
                f"fewer thresholds. Got {codes.min()} to {codes.max()}. "
                "Make them with program.quantize(X)."
            )
        return codes

    def dequantize(self, accumulators: IntArray) -> NDArray[np.float32]:
        """Turn accumulators into real outputs of shape (n_samples, n_outputs)."""
        return self.scaler(accumulators)

    def __call__(self, X: FloatArray) -> NDArray[np.float32]:
        """Quantize, run and dequantize, a block of rows at a time."""
        dtype = self.layers[0].exact_float
        X = self.quantizer.check(X)
        return self.dequantize(self._in_blocks(X, lambda block: self.quantizer.count(block, dtype)))


def _freeze(instance: object, name: str, dtype: type, n_dimensions: int) -> None:
    """Replace an array field by an immutable copy of the right type and rank."""
    given = np.asarray(getattr(instance, name))
    if np.issubdtype(dtype, np.integer) and given.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold integers. Got {given.dtype}.")
    array: NDArray = np.array(given, dtype=dtype)
    if array.ndim != n_dimensions:
        raise ValueError(f"{name} must have {n_dimensions} dimension(s). Got {array.ndim}.")
    array.setflags(write=False)
    object.__setattr__(instance, name, array)
