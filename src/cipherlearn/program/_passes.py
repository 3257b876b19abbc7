"""Passes over a program that keep its function: one program in, a smaller one out."""

from __future__ import annotations

import dataclasses

import numpy as np

from cipherlearn.program._decoder import OutputScaler
from cipherlearn.program._encoder import InputQuantizer
from cipherlearn.program._layer import IntegerLayer
from cipherlearn.program._program import IntegerProgram

__all__ = ["simplify"]


def simplify(program: IntegerProgram) -> IntegerProgram:
    """Remove neurons and input codes that cannot change any output.

    A neuron cannot if nothing reads it, or if its table gives the same code for every sum that
    its inputs allow. Each removed neuron saves a bootstrap, each removed code a ciphertext.

    Parameters
    ----------
    program : IntegerProgram

    Returns
    -------
    IntegerProgram
        It gives the same outputs for every row.

    Examples
    --------
    >>> import numpy as np
    >>> from cipherlearn import NeuralNetClassifier
    >>> from cipherlearn.program._passes import simplify
    >>> X = np.arange(20.0)[:, None]
    >>> clf = NeuralNetClassifier(max_epochs=5).fit(X, np.arange(20) > 9)
    >>> simplify(clf.program_).n_bootstraps == clf.program_.n_bootstraps  # fit did it
    True
    """
    layers, scaler = list(program.layers), program.scaler
    for i in reversed(range(len(layers) - 1)):
        layer, reader = layers[i], layers[i + 1]
        codes = np.array([(r.low, r.high) for r in layer.table_ranges])
        # The reader must know of it too, or its smallest sum would not move along.
        constant = (codes[:, 0] == codes[:, 1]) & (reader.input_low == reader.input_high)
        if reader.lsbs_to_remove:
            # Without it the sums would move, but the multiples that they are rounded to would not.
            constant &= codes[:, 0] == 0
        kept = _at_least_one(reader.weights.any(axis=0) & ~constant)
        if reader.tables is None:
            # A table is read relative to the smallest sum, which moves along. An output is not.
            moved = reader.weights[:, ~kept] @ codes[~kept, 0]
            scaler = OutputScaler(scaler.gain, scaler.bias, scaler.offset + moved)
        assert layer.tables is not None
        layers[i] = dataclasses.replace(
            layer, weights=layer.weights[kept], tables=layer.tables[kept]
        )
        layers[i + 1] = _without_inputs(reader, kept)
    kept = _at_least_one(layers[0].weights.any(axis=0))
    quantizer = program.quantizer
    layers[0] = _without_inputs(layers[0], kept)
    quantizer = InputQuantizer(
        quantizer.n_features, quantizer.feature[kept], quantizer.thresholds[kept]
    )
    return IntegerProgram(quantizer, tuple(layers), scaler)


def _without_inputs(layer: IntegerLayer, kept: np.ndarray) -> IntegerLayer:
    return dataclasses.replace(
        layer,
        weights=layer.weights[:, kept],
        input_low=layer.input_low[kept],
        input_high=layer.input_high[kept],
    )


def _at_least_one(kept: np.ndarray) -> np.ndarray:
    """Keep a first element where none is needed: a layer cannot be empty."""
    return kept if kept.any() else np.arange(len(kept)) == 0
