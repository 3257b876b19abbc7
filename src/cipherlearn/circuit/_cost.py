"""What a program costs on ciphertexts of this machine, before it is compiled."""

from __future__ import annotations

import math
import os
import statistics
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cipherlearn._html import panel, paragraphs
from cipherlearn._progress import progress_bar
from cipherlearn._words import bootstraps, size
from cipherlearn.circuit._circuit import Circuit
from cipherlearn.engines import engine_name, load_engine
from cipherlearn.engines._options import CompileOptions
from cipherlearn.program._decoder import OutputScaler
from cipherlearn.program._encoder import InputQuantizer
from cipherlearn.program._layer import IntegerLayer
from cipherlearn.program._nodes import Lookup, Sum
from cipherlearn.program._program import IntegerProgram

__all__ = ["CostEstimate", "Precision", "bare_program", "estimate_cost", "known_cost"]

# Calls timed per calibration circuit, after one that unpacks the keys.
_REPEATS = 5


@dataclass(frozen=True)
class Precision:
    """What decides the price of a layer's operations, besides how many there are.

    Parameters
    ----------
    n_bits : int
        Bits of an accumulator: in a hidden layer those that its table sees.
    lsbs_to_remove : int
        Further bits, which are rounded away.
    norm2 : int
        Largest squared norm of a neuron's weights, rounded up to a power of 2. It is the growth of
        the noise in a sum.
    largest : int
        Largest output code of a hidden layer. 0 in the last.
    """

    n_bits: int
    lsbs_to_remove: int
    norm2: int
    largest: int

    @classmethod
    def of(cls, layer: IntegerLayer) -> Precision:
        norm2 = max(1, int((layer.weights**2).sum(axis=1).max()))
        largest = 0 if layer.tables is None else max(1, *(r.high for r in layer.table_ranges))
        return cls(
            n_bits=layer.n_table_bits,
            lsbs_to_remove=layer.lsbs_to_remove,
            norm2=1 << (norm2 - 1).bit_length(),
            largest=largest,
        )

    @property
    def width(self) -> int:
        """Largest width of a sum of this precision."""
        n_bits = self.n_bits + self.lsbs_to_remove
        return max(1, 2**n_bits - 2**self.lsbs_to_remove)


@dataclass(frozen=True)
class CostEstimate:
    """Expected cost of encrypted prediction on this machine.

    Attributes
    ----------
    engine : str
        Name of the FHE compiler whose circuits were timed.
    n_bootstraps : int
        Table lookups per row.
    table_bits : tuple of int
        Bits that the tables of each hidden layer see.
    seconds : float
        Time of one call, for a batch of rows.
    seconds_per_row : float
        That time divided by the rows of a batch.
    fixed_seconds : float
        Part of ``seconds`` that does not depend on the number of bootstraps.
    layer_seconds : tuple of float
        Part of ``seconds`` for the bootstraps of each hidden layer.
    key_bytes, input_bytes, output_bytes : int
        Serialized evaluation keys, encrypted batch, and encrypted result.
    n_rounding_bootstraps : int
        Bootstraps of 1 bit per row that exact rounding takes besides.
    """

    engine: str
    n_bootstraps: int
    table_bits: tuple[int, ...]
    seconds: float
    seconds_per_row: float
    fixed_seconds: float
    layer_seconds: tuple[float, ...]
    key_bytes: int
    input_bytes: int
    output_bytes: int
    n_rounding_bootstraps: int = 0

    @property
    def lines(self) -> list[str]:
        """Sentences that say it all."""
        number = bootstraps(self.n_bootstraps, self.table_bits, self.n_rounding_bootstraps)
        return [
            f"{number}. About {self.seconds_per_row:.3g} s a row and {self.seconds:.3g} s a call, "
            f"{self.fixed_seconds:.2g} s of which are fixed. Timed with {self.engine}.",
            f"Evaluation keys {size(self.key_bytes)}, an encrypted batch {size(self.input_bytes)}, "
            f"its result {size(self.output_bytes)}.",
        ]

    def __repr__(self) -> str:
        return f"<CostEstimate: {' '.join(self.lines)}>"

    def _repr_html_(self) -> str:
        return panel("Cost estimate", paragraphs(self.lines))


@dataclass(frozen=True)
class _Calibration:
    fixed_seconds: float
    neuron_seconds: tuple[float, ...]
    key_bytes: int
    input_bytes: int
    output_bytes: int


def estimate_cost(
    program: IntegerProgram, options: CompileOptions, verbose: bool | int = False
) -> CostEstimate:
    """Estimate what a program costs, from a short calibration on this machine.

    Circuits of a few neurons with the precisions of the program are compiled and timed. The
    result is kept, so programs of the same precisions need no calibration of their own.

    Parameters
    ----------
    program : IntegerProgram
        A fitted estimator's ``program_``.
    options : CompileOptions
    verbose : bool or int, default=False
        Whether to show a progress bar over the circuits that are timed.

    Returns
    -------
    CostEstimate

    Examples
    --------
    >>> from cipherlearn import NeuralNetClassifier
    >>> clf = NeuralNetClassifier(
    ...     module__n_hidden_accum_bits=3, module__n_output_accum_bits=4, max_epochs=5
    ... )
    >>> clf = clf.fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
    >>> cost = clf.estimate()
    >>> cost.n_bootstraps == clf.program_.n_bootstraps
    True
    >>> 0 < cost.seconds < 10
    True
    """
    batch_size = options.batch_size
    key = _calibration_key(program, options)
    if key not in _calibrations:
        _calibrations[key] = _calibrate(verbose, *key)
    calibration = _calibrations[key]
    layer_seconds = tuple(
        batch_size * len(layer.weights) * seconds
        for layer, seconds in zip(program.hidden_layers, calibration.neuron_seconds, strict=True)
    )
    seconds = calibration.fixed_seconds + sum(layer_seconds)
    return CostEstimate(
        engine=engine_name(),
        n_bootstraps=program.n_bootstraps,
        table_bits=load_engine().table_bits(program),
        seconds=seconds,
        seconds_per_row=seconds / batch_size,
        fixed_seconds=calibration.fixed_seconds,
        layer_seconds=layer_seconds,
        key_bytes=calibration.key_bytes,
        input_bytes=batch_size * calibration.input_bytes,
        output_bytes=batch_size * calibration.output_bytes,
        n_rounding_bootstraps=program.n_rounding_bootstraps if options.rounding == "exact" else 0,
    )


def known_cost(program: IntegerProgram, options: CompileOptions) -> CostEstimate | None:
    """Return :func:`estimate_cost` if this process has timed such circuits already, else None."""
    if _calibration_key(program, options) not in _calibrations:
        return None
    return estimate_cost(program, options)


# What was measured in this process, by the last arguments of _calibrate.
_calibrations: dict[tuple[Any, ...], _Calibration] = {}


def _calibration_key(program: IntegerProgram, options: CompileOptions) -> tuple[Any, ...]:
    precisions = tuple(Precision.of(layer) for layer in program.layers)
    # Calls of one row are timed.
    return precisions, program.n_codes, program.n_outputs, replace(options, batch_size=1)


def _calibrate(
    verbose: bool | int,
    precisions: tuple[Precision, ...],
    n_codes: int,
    n_outputs: int,
    options: CompileOptions,
) -> _Calibration:
    """Time bare circuits of few neurons, and of more in one layer after another."""
    # Fewer would get cryptographic parameters of their own.
    few = max(8, 2 * (os.cpu_count() or 1))
    many = 3 * few
    n_hidden = len(precisions) - 1

    def measure(counts: list[int]) -> tuple[float, Circuit]:
        circuit = Circuit(
            bare_program(precisions, counts, n_codes, n_outputs),
            [p.n_bits + p.lsbs_to_remove for p in precisions],
            **options.to_dict(),
        )
        return _seconds_per_call(circuit), circuit

    neuron_seconds = []
    title = "Timing small circuits"
    with progress_bar(1 + n_hidden, title, "circuit", verbose) as progress:
        base, circuit = measure([few] * n_hidden)
        progress.update()
        for i in range(n_hidden):
            more, circuit = measure([many if j == i else few for j in range(n_hidden)])
            neuron_seconds.append(max(0.0, more - base) / (many - few))
            progress.update()
    input_bytes, output_bytes = circuit.ciphertext_sizes()
    return _Calibration(
        fixed_seconds=max(0.0, base - few * sum(neuron_seconds)),
        neuron_seconds=tuple(neuron_seconds),
        key_bytes=len(circuit.evaluation_keys()),
        input_bytes=input_bytes,
        output_bytes=output_bytes,
    )


def _seconds_per_call(circuit: Circuit) -> float:
    codes = np.zeros((1, circuit.program.n_codes), dtype=np.int64)
    circuit.run(circuit.encrypt(codes))
    seconds = []
    for _ in range(_REPEATS):
        ciphertext = circuit.encrypt(codes)
        start = time.perf_counter()
        circuit.run(ciphertext)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def bare_program(
    precisions: tuple[Precision, ...], counts: list[int], n_codes: int, n_outputs: int
) -> IntegerProgram:
    """Make a program of given precisions and widths that computes nothing of interest.

    Parameters
    ----------
    precisions : tuple of Precision
        Of each layer.
    counts : list of int
        Neurons of each hidden layer.
    n_codes, n_outputs : int
        Codes of a row, and outputs.
    """
    sizes = [n_codes, *counts]
    rows = [
        _row(precision, n_inputs, largest)
        for precision, n_inputs, largest in zip(
            precisions, sizes, [1, *(p.largest for p in precisions)], strict=False
        )
    ]
    # A first input of larger codes takes up what the weights of the others leave of the width.
    wide = [
        max(largest, precision.width - int(row[1:].sum()) * largest)
        for precision, row, largest in zip(
            precisions, rows, [1, *(p.largest for p in precisions)], strict=False
        )
    ]
    thresholds = np.full((n_codes, wide[0]), np.inf)
    thresholds[:, 0], thresholds[0] = 0.5, np.arange(wide[0]) + 0.5
    nodes: list[Sum | Lookup] = []
    for i, (precision, row) in enumerate(zip(precisions, rows, strict=True)):
        n_neurons = [*counts, n_outputs][i]
        nodes.append(Sum((len(nodes),), np.tile(row, (n_neurons, 1))))
        if i == len(counts):
            break
        cells = np.arange(precision.width + 1) + (1 << precision.lsbs_to_remove >> 1)
        table = (cells >> precision.lsbs_to_remove) % (precision.largest + 1)
        tables = np.tile(table, (n_neurons, 1))
        tables[0, table == precision.largest] = wide[i + 1]
        low = np.zeros(n_neurons, dtype=np.int64)
        nodes.append(Lookup(len(nodes), tables, low, precision.lsbs_to_remove))
    ones = np.ones(n_outputs, dtype=np.float32)
    return IntegerProgram(
        InputQuantizer(n_codes, np.arange(n_codes), thresholds),
        (np.arange(n_codes),),
        tuple(nodes),
        (len(nodes),),
        OutputScaler(ones, 0 * ones),
    )


def _row(precision: Precision, n_inputs: int, largest: int) -> np.ndarray:
    """Weights of the norm of ``precision``, the first of them 1, within its width."""
    row = np.zeros(n_inputs, dtype=np.int64)
    row[0] = 1
    norm2, room = precision.norm2 - 1, precision.width // largest - 1
    size = math.ceil(math.sqrt(max(1, norm2) / max(1, n_inputs - 1)))
    for i in range(1, n_inputs):
        if norm2 < size**2 or room < size:
            break
        row[i] = size
        norm2 -= size**2
        room -= size
    return row
