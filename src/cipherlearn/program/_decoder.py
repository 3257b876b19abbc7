"""Decrypted sums to outputs, and outputs to predictions: the client's last steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cipherlearn.program._values import FloatArray, Immutable, IntArray, freeze

__all__ = ["LabelDecoder", "OutputScaler", "TargetDecoder"]

# Two integers of a lower magnitude add up to one that int64 holds.
_TOO_LARGE_TERM = 2**62


@dataclass(frozen=True, eq=False)
class OutputScaler(Immutable):
    """Affine map from decrypted accumulators to real outputs, on the client.

    A program may have several outputs, as many accumulators each as there are real outputs. They
    are scaled and added up. Computed in float32, as the torch module computes it.

    Parameters
    ----------
    gain : ndarray of shape (n_sums,), float32
        Unit of each accumulator, for all outputs side by side.
    bias : ndarray of shape (n_outputs,), float32
        ``output = sum((accumulator + offset) * gain) + bias``, of one accumulator of each output.
    offset : ndarray of shape (n_sums,), int64, or None
        Added to each accumulator. ``None`` stands for 0.

    Raises
    ------
    ValueError
        If the numbers of gains, offsets and biases do not fit together, or an offset or an
        accumulator has a magnitude of 2**62 or more.
    OverflowError
        If an output is beyond float32.

    Examples
    --------
    >>> from cipherlearn.program._decoder import OutputScaler
    >>> OutputScaler([0.5], [1.0])([[3], [4]]).tolist()
    [[2.5], [3.0]]
    >>> OutputScaler([0.5, 10.0], [1.0])([[3, 1], [4, 2]]).tolist()  # of two outputs
    [[12.5], [23.0]]
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
        n_sums, n_outputs = len(self.gain), len(self.bias)
        if len(self.offset) != n_sums or not n_outputs or not n_sums or n_sums % n_outputs:
            raise ValueError(
                "The output scaler needs one offset per gain, and one bias for each gain of an "
                f"output. Got {n_sums} gains, {len(self.offset)} offsets and {n_outputs} biases."
            )
        _check_terms("Offsets", self.offset)

    def __call__(self, accumulators: IntArray) -> NDArray[np.float32]:
        assert self.offset is not None
        accumulators = np.asarray(accumulators)
        _check_terms("Accumulators", accumulators)
        sums = accumulators.astype(np.int64, copy=False) + self.offset
        try:
            with np.errstate(over="raise"):
                scaled = sums.astype(np.float32) * self.gain
                first, *others = np.split(scaled, len(self.gain) // len(self.bias), axis=1)
                return sum(others, first) + self.bias
        except FloatingPointError as error:
            raise OverflowError(
                f"Outputs must fit float32. Sums of {sums.min()} to {sums.max()} with gains of up "
                f"to {np.abs(self.gain).max()} do not."
            ) from error


@dataclass(frozen=True, eq=False)
class LabelDecoder:
    """Outputs of a classifier to labels and probabilities.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        Labels, in the order of the outputs.
    rule : {"softmax", "identity"} or None, default=None
        How outputs become probabilities. ``None`` if the outputs give none.

    Examples
    --------
    >>> import numpy as np
    >>> from cipherlearn.program._decoder import LabelDecoder
    >>> decoder = LabelDecoder(np.array(["no", "yes"]), "softmax")
    >>> outputs = np.array([[0.0, 0.0], [1.0, 2.0]], dtype=np.float32)
    >>> decoder.predict(outputs).tolist()
    ['no', 'yes']
    >>> decoder.probabilities(outputs).round(2).tolist()
    [[0.5, 0.5], [0.27, 0.73]]
    """

    classes: NDArray[Any]
    rule: str | None = None
    estimator: ClassVar[str] = "classifier"

    def predict(self, outputs: NDArray[np.float32]) -> NDArray[Any]:
        """Return the label of the largest output of each row, the first if several are equal."""
        labels: NDArray[Any] = self.classes[outputs.argmax(axis=1)]
        return labels

    def probabilities(self, outputs: NDArray[np.float32]) -> FloatArray:
        """Return the probability of each class, or raise AttributeError without a rule."""
        if self.rule is None:
            raise AttributeError(
                "This model's outputs are no probabilities: it was trained with a criterion of "
                "its own. Use predict, or decrypt for the outputs."
            )
        # Sums of rows depend, in their last bits, on how the rows lie in memory.
        values = np.array(outputs, dtype=np.float64, order="C")
        if self.rule == "softmax":
            values = np.exp(values - values.max(axis=1, keepdims=True))
            values /= values.sum(axis=1, keepdims=True)
        return values


@dataclass(frozen=True, eq=False)
class TargetDecoder:
    """Outputs of a regressor to targets, in the units of the training data.

    Parameters
    ----------
    mean, scale : ndarray of shape (n_outputs,), float64
    is_1d : bool
        Whether the training targets were a vector.

    Examples
    --------
    >>> import numpy as np
    >>> from cipherlearn.program._decoder import TargetDecoder
    >>> decoder = TargetDecoder(np.array([10.0]), np.array([2.0]), is_1d=True)
    >>> decoder.predict(np.array([[-1.0], [0.5]], dtype=np.float32)).tolist()
    [8.0, 11.0]
    """

    mean: FloatArray
    scale: FloatArray
    is_1d: bool
    estimator: ClassVar[str] = "regressor"

    def predict(self, outputs: NDArray[np.float32]) -> FloatArray:
        """Return targets of shape (n_rows,) if ``is_1d``, else (n_rows, n_outputs)."""
        targets = outputs.astype(np.float64) * self.scale + self.mean
        return targets.ravel() if self.is_1d else targets


def _check_terms(what: str, values: NDArray[Any]) -> None:
    """Raise ValueError unless values are integers whose sum with another such one cannot wrap."""
    if values.dtype.kind not in "iu":
        raise ValueError(f"{what} must be integers. Got {values.dtype}.")
    if values.dtype.itemsize < 8 or values.size == 0:
        return
    low, high = int(values.min()), int(values.max())
    if low <= -_TOO_LARGE_TERM or high >= _TOO_LARGE_TERM:
        raise ValueError(f"{what} must be below 2**62 in magnitude. Got {low} to {high}.")
