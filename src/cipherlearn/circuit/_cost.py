"""Estimates of what encrypted prediction costs on this machine, without keys."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cipherlearn._html import panel, paragraphs
from cipherlearn._progress import stage
from cipherlearn._words import bootstraps, size
from cipherlearn.circuit._circuit import Circuit
from cipherlearn.engines import load_engine
from cipherlearn.engines._options import CompileOptions
from cipherlearn.engines.kernels import (
    Gate,
    KernelTimes,
    Parameters,
    count_threads,
    estimate_kernels,
    time_kernels,
)
from cipherlearn.program._nodes import Lookup
from cipherlearn.program._program import IntegerProgram

__all__ = ["CostEstimate", "estimate_cost", "known_cost"]

_RUNTIMES = {"kernels": "its kernels", "compiled": "a compiled circuit"}

# Time that a call and each of its steps take in Python, besides the kernels.
_CALL_SECONDS, _STEP_SECONDS = 5e-4, 2e-4

# Larger than the bit-width of any sum: an estimate refuses none.
_ANY_BITS = 64

# Calls of a compiled circuit that are timed, after one that loads the keys.
_REPEATS = 3


@dataclass(frozen=True)
class CostEstimate:
    """Expected cost of encrypted prediction on this machine.

    Attributes
    ----------
    engine : str
        Name of the FHE compiler that chose the parameters.
    runtime : {"kernels", "compiled"}
        Whether single kernels were timed, or the compiled circuit.
    n_bootstraps : int
        Table lookups per row.
    table_bits : tuple of int
        Bits that the tables of each hidden layer see.
    seconds : float
        Time of one call, for a batch of rows.
    seconds_per_row : float
        That time divided by the rows of a batch.
    fixed_seconds : float
        Part of ``seconds`` that does not depend on the number of bootstraps. 0 if the compiled
        circuit was timed as a whole.
    layer_seconds : tuple of float
        Part of ``seconds`` for the bootstraps of each hidden layer, with their keyswitches.
    keyswitch_seconds : float
        Part of ``seconds`` for keyswitches. 0 if the compiled circuit was timed as a whole.
    key_bytes, input_bytes, output_bytes : int
        Sizes of evaluation keys, an encrypted batch and an encrypted result, as they are sent.
    n_rounding_bootstraps : int
        Additional bootstraps of 1 bit per row, for exact rounding.
    """

    engine: str
    runtime: str
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
    keyswitch_seconds: float = 0.0

    @property
    def lines(self) -> list[str]:
        """Sentences with all figures."""
        number = bootstraps(self.n_bootstraps, self.table_bits, self.n_rounding_bootstraps)
        return [
            f"{number}. About {self.seconds_per_row:.3g} s a row and {self.seconds:.3g} s a call"
            f"{self._limits()}. Timed with {self.engine}, {_RUNTIMES[self.runtime]}.",
            f"Evaluation keys {size(self.key_bytes)}, an encrypted batch {size(self.input_bytes)}, "
            f"its result {size(self.output_bytes)}.",
        ]

    def _limits(self) -> str:
        if self.runtime != "kernels":
            return ""
        keyswitches = self.keyswitch_seconds
        return (
            f": {sum(self.layer_seconds) - keyswitches:.2g} s for bootstraps, {keyswitches:.2g} s "
            f"for keyswitches, and {self.fixed_seconds:.2g} s for the rest"
        )

    def __repr__(self) -> str:
        return f"<CostEstimate: {' '.join(self.lines)}>"

    def _repr_html_(self) -> str:
        return panel("Cost estimate", paragraphs(self.lines))


def estimate_cost(
    program: IntegerProgram, options: CompileOptions, verbose: bool | int = False
) -> CostEstimate:
    """Estimate what a program costs on this machine.

    The compiler chooses the cryptographic parameters, and Concrete's kernels are timed for them on
    random data, without keys. Parameters and times are kept, so that further estimates take
    milliseconds. Where the kernels cannot be used, the compiled circuit is timed with keys.

    Parameters
    ----------
    program : IntegerProgram
        A fitted estimator's ``program_``.
    options : CompileOptions
    verbose : bool or int, default=False
        Whether to say how long compilation and timing take.

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
    key = _key(program, options)
    if key not in _estimates:
        with stage("Estimating", verbose):
            _estimates[key] = _estimate(program, options)
    return _estimates[key]


def known_cost(program: IntegerProgram, options: CompileOptions) -> CostEstimate | None:
    """Return the estimate for a program if this process has made it before, else ``None``."""
    return _estimates.get(_key(program, options))


# Estimates of this process, by what decides them.
_estimates: dict[tuple[Any, ...], CostEstimate] = {}

# Times of the kernels, by the shapes of the keys.
_times: dict[tuple[Any, ...], KernelTimes] = {}


def _key(program: IntegerProgram, options: CompileOptions) -> tuple[Any, ...]:
    nodes: list[tuple[Any, ...]] = []
    for node in program.nodes:
        if isinstance(node, Lookup):
            layer = program.layer_of(node.reads)
            bits = layer.n_table_bits, layer.output_bits, node.lsbs_to_remove
            nodes.append((node.reads, node.n_neurons, *bits))
        else:
            # The weights' norm decides the noise, and so the parameters.
            norm2 = int((node.weights**2).sum(axis=1).max())
            layer = program.layer_of(len(program.inputs) + len(nodes))
            nodes.append((node.reads, node.n_neurons, layer.n_accum_bits, norm2))
    sizes = tuple(map(len, program.inputs))
    return sizes, tuple(nodes), program.outputs, options, count_threads()


def _estimate(program: IntegerProgram, options: CompileOptions) -> CostEstimate:
    circuit = Circuit(program, [_ANY_BITS] * len(program.layers), **options.to_dict())
    is_exact = options.rounding == "exact"
    common: dict[str, Any] = {
        "engine": circuit.engine,
        "n_bootstraps": program.n_bootstraps,
        "table_bits": load_engine().table_bits(program),
        "n_rounding_bootstraps": program.n_rounding_bootstraps if is_exact else 0,
    }
    if circuit.runtime == "kernels":
        return _from_kernels(program, options, circuit.files()["specs.json"], common)
    return _from_calls(circuit, common)


def _from_kernels(
    program: IntegerProgram, options: CompileOptions, specs: bytes, common: dict[str, Any]
) -> CostEstimate:
    parameters = Parameters.from_specs(specs)
    masks = tuple((gate.dimension, gate.seeded) for gate in parameters.inputs)
    shapes = parameters.bootstrap_keys, parameters.keyswitch_keys, masks, count_threads()
    if shapes not in _times:
        _times[shapes] = time_kernels(parameters)
    n_rows = options.batch_size
    parts = estimate_kernels(program, parameters, options.rounding, _times[shapes], n_rows)
    fixed = parts.masks + _CALL_SECONDS + len(program.nodes) * _STEP_SECONDS
    lookups = tuple(map(sum, zip(parts.bootstraps, parts.keyswitches, strict=True)))
    seconds = fixed + sum(lookups)
    return CostEstimate(
        **common,
        runtime="kernels",
        seconds=seconds,
        seconds_per_row=seconds / n_rows,
        fixed_seconds=fixed,
        layer_seconds=lookups,
        keyswitch_seconds=sum(parts.keyswitches),
        key_bytes=parameters.sent_bytes,
        input_bytes=_gate_bytes(parameters.inputs, n_rows),
        output_bytes=_gate_bytes(parameters.outputs, n_rows),
    )


def _gate_bytes(gates: Sequence[Gate], n_rows: int) -> int:
    return sum(8 * n_rows * gate.n_values * gate.n_words for gate in gates)


def _from_calls(circuit: Circuit, common: dict[str, Any]) -> CostEstimate:
    program = circuit.program
    codes = np.zeros((1, program.n_codes), dtype=np.int64)
    circuit.run(circuit.encrypt(codes))
    times = []
    for _ in range(_REPEATS):
        ciphertexts = circuit.encrypt(codes)
        start = time.perf_counter()
        circuit.run(ciphertexts)
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times)
    # A table of one more bit takes about twice as long.
    shares = [
        len(layer.weights) * 2.0**bits
        for layer, bits in zip(program.hidden_layers, common["table_bits"], strict=True)
    ]
    input_bytes, output_bytes = circuit.ciphertext_sizes()
    return CostEstimate(
        **common,
        runtime="compiled",
        seconds=seconds,
        seconds_per_row=seconds / circuit.batch_size,
        fixed_seconds=0.0 if shares else seconds,
        layer_seconds=tuple(seconds * share / sum(shares) for share in shares),
        key_bytes=len(circuit.evaluation_keys()),
        input_bytes=input_bytes,
        output_bytes=output_bytes,
    )
