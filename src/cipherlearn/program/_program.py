"""The exact integer form of a trained network: immutable, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn._html import html_table, panel
from cipherlearn._words import bootstraps, count, of_trained
from cipherlearn.program._decoder import OutputScaler
from cipherlearn.program._encoder import BLOCK_ROWS, InputQuantizer
from cipherlearn.program._layer import IntegerLayer
from cipherlearn.program._values import Immutable, IntArray, IntegerRange

__all__ = ["IntegerProgram"]


@dataclass(frozen=True, eq=False)
class IntegerProgram(Immutable):
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
        for start in range(0, len(codes), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
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
