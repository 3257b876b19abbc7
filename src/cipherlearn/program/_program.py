"""The exact integer form of a trained network: immutable, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn._features import as_floats, dense_rows, is_sparse
from cipherlearn._html import html_table, panel
from cipherlearn._words import bootstraps, count, of_trained

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["InputQuantizer", "IntegerLayer", "IntegerProgram", "IntegerRange", "OutputScaler"]

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

# Rows per block of the clear execution: bounds its memory whatever the input. NumPy buffers
# broadcast operands of fewer than 8192, which is slow.
_BLOCK_ROWS = 10_000

# Largest number of values of a block that is made of sparse rows.
_BLOCK_VALUES = 4_000_000

# Two integers of a lower magnitude add up to one that int64 holds.
_TOO_LARGE_TERM = 2**62

# Tables of at most this many steps are evaluated by comparisons, which beat indexing.
_MAX_STEPS = 8


@dataclass(frozen=True)
class IntegerRange:
    """Every integer from ``low`` to ``high``, both included.

    Examples
    --------
    >>> from cipherlearn.program._program import IntegerRange
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
    >>> from cipherlearn.program._program import InputQuantizer
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

    def __call__(self, X: Any) -> IntArray:
        X = self.check(X)
        codes = np.empty((X.shape[0], len(self.feature)), dtype=np.int64)
        for block, counts in self.blocks(X):
            codes[block] = counts.T
        return codes

    def random_codes(self, n_rows: int, rng: np.random.Generator) -> IntArray:
        """Draw rows that features can give, with every interval between thresholds as likely."""
        X = np.zeros((n_rows, self.n_features))
        for feature in np.unique(self.feature):
            thresholds = self.thresholds[self.feature == feature]
            values = np.append(thresholds[np.isfinite(thresholds)], -np.inf)
            X[:, feature] = rng.choice(np.unique(values), n_rows)
        return self(X)

    def check(self, X: Any) -> Any:
        """Return features as floats, dense or in CSR, or raise ValueError if they are none."""
        X = as_floats(X)
        n_nan = np.isnan(X.data if is_sparse(X) else X).sum()
        if X.ndim != 2 or X.shape[1] != self.n_features or n_nan:
            raise ValueError(
                f"Features must be numbers of shape (n_rows, {self.n_features}), without NaN. "
                f"Got shape {X.shape} with {n_nan} NaN."
            )
        return X

    def blocks(self, X: Any, dtype: np.dtype | type = np.int64) -> Iterator[tuple[slice, NDArray]]:
        """Give the codes of checked features, transposed, a block of rows at a time."""
        quantizer, n_block = self, _BLOCK_ROWS
        if is_sparse(X):
            # Of some thousand features few may be read.
            read, quantizer = self._of_read_features
            X = X[:, read]
            n_block = min(_BLOCK_ROWS, max(1, _BLOCK_VALUES // len(read)))
        for start in range(0, X.shape[0], n_block):
            block = slice(start, start + n_block)
            yield block, quantizer.count(dense_rows(X, block), dtype)

    @cached_property
    def _of_read_features(self) -> tuple[IntArray, InputQuantizer]:
        """The features that some code reads, and the quantizer of those alone."""
        read, feature = np.unique(self.feature, return_inverse=True)
        return read, InputQuantizer(len(read), feature.ravel(), self.thresholds)

    def count(self, X: FloatArray, dtype: np.dtype | type = np.int64) -> NDArray:
        """Codes of checked features, transposed: of shape (n_codes, n_rows)."""
        codes: NDArray = np.empty((len(self.feature), len(X)), dtype=dtype)
        for features, rows, thresholds in self._runs:
            codes[rows] = _count_reached(X.T[features, None, :], thresholds)
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
    lsbs_to_remove : int, default=0
        Least significant bits that tables do not see: accumulators with the same
        :meth:`cell` share an entry.
    """

    weights: IntArray
    input_low: IntArray
    input_high: IntArray
    tables: IntArray | None = None
    lsbs_to_remove: int = 0

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
        self._check_rounding()

    def _check_rounding(self) -> None:
        if not 0 <= self.lsbs_to_remove < 53 or (self.lsbs_to_remove and self.tables is None):
            raise ValueError(
                f"Only a layer with tables removes bits, and at most 52. Got {self.lsbs_to_remove}."
            )
        if self.lsbs_to_remove == 0:
            return
        assert self.tables is not None
        for low, high, table in zip(self.low, self.high, self.tables, strict=True):
            sums = np.arange(low, high + 1)
            same_cell = np.diff(self.cell(sums)) == 0
            if np.diff(table[: len(sums)])[same_cell].any():
                raise ValueError(
                    f"Tables must not tell apart sums that {self.lsbs_to_remove} removed bits "
                    "make equal."
                )

    def cell(self, accumulators: IntArray) -> IntArray:
        """Round accumulators to multiples of ``2**lsbs_to_remove``, in that unit."""
        half = (1 << self.lsbs_to_remove) >> 1
        return (accumulators + half) >> self.lsbs_to_remove

    @property
    def n_table_bits(self) -> int:
        """Bits of an accumulator that the tables see, of those that hold it."""
        return max(1, int((self.cell(self.high) - self.cell(self.low)).max()).bit_length())

    @property
    def n_weights(self) -> int:
        """Non-zero weights."""
        return int(np.count_nonzero(self.weights))

    @property
    def n_rounding_bootstraps(self) -> int:
        """Bootstraps of 1 bit that exact rounding takes: one for each removed bit of a neuron."""
        return self.lsbs_to_remove * len(self.weights)

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

    def __repr__(self) -> str:
        n_neurons, n_inputs = self.weights.shape
        tables = "no tables"
        if self.tables is not None:
            tables = f"{count(n_neurons, 'table')} of {count(self.n_table_bits, 'bit')}"
        return (
            f"<IntegerLayer: {count(n_neurons, 'neuron')} of {count(n_inputs, 'input')}, "
            f"{count(self.n_weights, 'non-zero weight')}, "
            f"sums of {count(self.n_accum_bits, 'bit')}, {tables}>"
        )

    def __call__(self, codes: IntArray) -> IntArray:
        return self.apply(np.asarray(codes).T).astype(np.int64).T

    def apply(self, codes: IntArray) -> IntArray:
        """Compute on transposed codes, with a row per input."""
        accumulators: IntArray = self._sparse_weights @ codes.astype(self.sum_dtype, copy=False)
        if self.tables is None:
            return accumulators
        if self._steps is None:
            index = accumulators.astype(np.intp)
            index += (np.arange(len(self.weights)) * self.tables.shape[1] - self.low)[:, None]
            return self.tables.ravel().take(index)
        first, rises, falls = self._steps
        outputs = first + _count_reached(accumulators, rises)
        outputs -= _count_reached(accumulators, falls)
        return outputs

    @cached_property
    def sum_dtype(self) -> np.dtype:
        """Narrowest integers that hold every partial sum of the layer, and the next."""
        return np.min_scalar_type(-int(self._reach()) - 1)

    @cached_property
    def _sparse_weights(self) -> csr_array:
        # Most weights are pruned, and BLAS knows no integers. A client never comes here, and
        # imports faster without.
        from scipy.sparse import csr_array

        return csr_array(self.weights.astype(self.sum_dtype))

    @cached_property
    def _steps(self) -> tuple[IntArray, IntArray, IntArray] | None:
        """First entries, and where tables rise and fall by 1, by step, unless in many places."""
        assert self.tables is not None
        sizes = (self.high - self.low + 1).tolist()
        changes = [np.diff(row[:size]) for row, size in zip(self.tables, sizes, strict=True)]
        if max(np.abs(change).sum() for change in changes) > _MAX_STEPS:
            return None
        reached = [low + 1 + np.arange(len(c)) for low, c in zip(self.low, changes, strict=True)]
        rises = [np.repeat(a, np.maximum(c, 0)) for a, c in zip(reached, changes, strict=True)]
        falls = [np.repeat(a, np.maximum(-c, 0)) for a, c in zip(reached, changes, strict=True)]
        # Unsigned sums that wrap on the way to a code wrap back.
        first = self.tables[:, :1].astype(np.min_scalar_type(self.tables.max()))
        return first, self._by_step(rises), self._by_step(falls)

    def _by_step(self, thresholds: list[IntArray]) -> IntArray:
        """Stack thresholds of shape (n_steps, n_neurons), filled up with some beyond reach."""
        shape = max(map(len, thresholds)), len(thresholds)
        stacked = np.full(shape, int(self._reach()) + 1, dtype=self.sum_dtype)
        for neuron, values in enumerate(thresholds):
            stacked[: len(values), neuron] = values
        return stacked


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

    def __repr__(self) -> str:
        codes = f"{count(self.n_codes, 'code')} of {count(self.quantizer.n_bits, 'bit')}"
        hidden = " + ".join(str(len(layer.weights)) for layer in self.layers[:-1]) or "no"
        return (
            f"<IntegerProgram: {count(self.n_features, 'feature')} in {codes}, "
            f"{hidden} hidden neuron{'' if hidden == '1' else 's'}, "
            f"{count(self.n_outputs, 'output')}, {self.bootstraps()}>"
        )

    def _repr_html_(self) -> str:
        return panel("Integer program", self.html_table())

    def html_table(
        self,
        n_trained: Sequence[int] | None = None,
        allowed_bits: Sequence[int] | None = None,
    ) -> str:
        """Make a table of the layers, with what training knows of them if given."""
        columns = ["layer", "neurons", "non-zero weights", "proven bits", "bootstraps"]
        rows = [
            [
                name,
                str(len(layer.weights)),
                str(layer.n_weights),
                str(layer.n_accum_bits),
                "" if layer.tables is None else str(len(layer.weights)),
            ]
            for name, layer in zip(self.layer_names, self.layers, strict=True)
        ]
        for i, row in enumerate(rows):
            if n_trained is not None:
                row[1] = of_trained(int(row[1]), n_trained[i])
            if allowed_bits is not None:
                row.insert(4, str(allowed_bits[i]))
        if allowed_bits is not None:
            columns.insert(4, "allowed bits")
        return html_table(columns, rows)

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

    @property
    def n_rounding_bootstraps(self) -> int:
        """Bootstraps of 1 bit that exact rounding takes per row, besides the lookups."""
        return sum(layer.n_rounding_bootstraps for layer in self.layers)

    def bootstraps(self, rounding: str = "exact") -> str:
        """Say how many bootstraps a row takes, and of how many bits."""
        n_rounding = self.n_rounding_bootstraps if rounding == "exact" else 0
        bits = [layer.n_table_bits for layer in self.layers[:-1]]
        return bootstraps(self.n_bootstraps, bits, n_rounding)

    @property
    def layer_names(self) -> list[str]:
        """What layers are called in reports and pictures: "hidden 1" and so on, and "output"."""
        return [*(f"hidden {i}" for i in range(1, len(self.layers))), "output"]

    def quantize(self, X: Any) -> IntArray:
        """Turn features, an array or sparse, into integer codes of shape (n_samples, n_codes)."""
        return self.quantizer(X)

    def run(self, codes: IntArray) -> IntArray:
        """Compute the last layer's accumulators, of shape (n_samples, n_outputs)."""
        codes = self.check_codes(codes)
        result = np.empty((len(codes), self.n_outputs), dtype=np.int64)
        for start in range(0, len(codes), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            result[block] = self._accumulate(codes[block].T)
        return result

    def _accumulate(self, codes: NDArray) -> NDArray:
        """Compute accumulators of shape (n_rows, n_outputs) from transposed codes."""
        for layer in self.layers:
            codes = layer.apply(codes)
        return codes.T

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

    def __call__(self, X: Any) -> NDArray[np.float32]:
        """Quantize, run and dequantize, a block of rows at a time."""
        X = self.quantizer.check(X)
        outputs = np.empty((X.shape[0], self.n_outputs), dtype=np.float32)
        for block, codes in self.quantizer.blocks(X, self.layers[0].sum_dtype):
            outputs[block] = self.dequantize(self._accumulate(codes))
        return outputs


def _count_reached(values: NDArray, thresholds: NDArray) -> NDArray:
    """Count the thresholds of shape (n_steps, ...) that the values of shape (..., n) reach."""
    dtype = np.uint8 if len(thresholds) < 256 else np.int64
    counts: NDArray = np.zeros((*thresholds.shape[1:], values.shape[-1]), dtype=dtype)
    for threshold in thresholds:
        counts += (values >= threshold[..., None]).view(np.uint8)
    return counts


def _check_terms(what: str, values: NDArray) -> None:
    """Raise ValueError unless values are integers whose sum with another such one cannot wrap."""
    if values.dtype.kind not in "iu":
        raise ValueError(f"{what} must be integers. Got {values.dtype}.")
    if values.dtype.itemsize < 8 or values.size == 0:
        return
    low, high = int(values.min()), int(values.max())
    if low <= -_TOO_LARGE_TERM or high >= _TOO_LARGE_TERM:
        raise ValueError(f"{what} must be below 2**62 in magnitude. Got {low} to {high}.")


def _freeze(instance: object, name: str, dtype: type, n_dimensions: int) -> None:
    """Replace an array field by an immutable copy of the right type and rank."""
    given = np.asarray(getattr(instance, name))
    if np.issubdtype(dtype, np.integer) and given.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold integers. Got {given.dtype}.")
    array: NDArray = np.array(given, dtype=dtype)
    if given.dtype.kind == "u" and (array < 0).any():
        raise ValueError(f"{name} must fit {np.dtype(dtype)}. Got {given.max()}.")
    if array.ndim != n_dimensions:
        raise ValueError(f"{name} must have {n_dimensions} dimension(s). Got {array.ndim}.")
    array.setflags(write=False)
    object.__setattr__(instance, name, array)
