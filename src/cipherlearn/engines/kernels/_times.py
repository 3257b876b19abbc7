"""How long the kernels take on this machine, measured on random data: no keys are needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn.engines.kernels._backend import CpuBackend
from cipherlearn.engines.kernels._library import load_library
from cipherlearn.engines.kernels._parameters import (
    BootstrapKey,
    Gate,
    KeyswitchKey,
    Parameters,
)
from cipherlearn.engines.kernels._steps import Extraction, LookupStep, Step

__all__ = ["KernelTimes", "predict_seconds", "time_kernels"]

# As much of a key is timed: more than caches hold, less than takes long to make.
_KEY_WORDS = 2**21

_REPEATS = 3


@dataclass(frozen=True)
class KernelTimes:
    """Seconds of the kernels, for one ciphertext on one thread.

    Parameters
    ----------
    bootstrap, keyswitch : tuple of float
        With each key, in the order of the parameters.
    keyswitch_many : tuple of float
        Per ciphertext, when ``n_together`` are switched together.
    expand : tuple of float
        Of each input, to draw the mask of a ciphertext.
    n_together : int
    """

    bootstrap: tuple[float, ...]
    keyswitch: tuple[float, ...]
    keyswitch_many: tuple[float, ...]
    expand: tuple[float, ...]
    n_together: int = 8

    def keyswitches(self, key: int, n: int) -> float:
        """Seconds to switch ``n`` ciphertexts together: the key is read once for all."""
        alone, many = self.keyswitch[key], self.keyswitch_many[key]
        reading = max(0.0, alone - many) / (1 - 1 / self.n_together)
        return (alone - reading) * n + reading


def time_kernels(parameters: Parameters) -> KernelTimes:
    """Time the kernels for a circuit's parameters, in about a tenth of a second for each key.

    Parameters
    ----------
    parameters : Parameters

    Raises
    ------
    EngineNotFoundError
        If the kernels cannot be used here.

    Examples
    --------
    >>> from cipherlearn.engines.kernels import Parameters, time_kernels
    >>> time_kernels(Parameters((), (), (), ()))
    KernelTimes(bootstrap=(), keyswitch=(), keyswitch_many=(), expand=(), n_together=8)
    """
    backend, rng = CpuBackend(load_library()), np.random.default_rng(0)

    def words(*shape: int) -> NDArray[Any]:
        return rng.integers(0, 2**64, shape, dtype=np.uint64)

    def bootstrap(shape: BootstrapKey) -> float:
        # One step for each word of the mask, so that some of them tell the rest.
        per_step = shape.n_words // shape.n
        part = replace(shape, n=min(shape.n, max(64, _KEY_WORDS // per_step)))
        key = (1e15 * rng.random(part.n_words)).view(np.complex128)
        polynomials = words(1, shape.polynomial_size)
        inputs = words(1, part.n + 1)
        seconds = _seconds(lambda: backend.bootstrap(part, key, inputs, polynomials, 1, 1))
        return seconds * shape.n / part.n

    def keyswitch(shape: KeyswitchKey, n: int) -> float:
        per_step = shape.n_words // shape.n_in
        part = replace(shape, n_in=min(shape.n_in, max(1, _KEY_WORDS // per_step)))
        key, inputs = words(part.n_words), words(n, part.n_in + 1)
        seconds = _seconds(lambda: backend.keyswitch(part, key, inputs, 1))
        return seconds * shape.n_in / part.n_in / n

    def expand(gate: Gate) -> float:
        inputs = words(1, gate.n_words)
        return _seconds(lambda: backend.expand(inputs, gate.dimension, 1)) if gate.seeded else 0.0

    n_together = KernelTimes.n_together
    return KernelTimes(
        tuple(map(bootstrap, parameters.bootstrap_keys)),
        tuple(keyswitch(shape, 1) for shape in parameters.keyswitch_keys),
        tuple(keyswitch(shape, n_together) for shape in parameters.keyswitch_keys),
        tuple(map(expand, parameters.inputs)),
    )


def predict_seconds(
    steps: Sequence[Step | None],
    parameters: Parameters,
    times: KernelTimes,
    n_rows: int,
    n_threads: int,
) -> tuple[float, tuple[float, ...]]:
    """Predict how long a program's kernels take together.

    Parameters
    ----------
    steps : sequence
        What :func:`make_plan` gave for each lookup of the program.
    parameters : Parameters
    times : KernelTimes
        Of these parameters.
    n_rows, n_threads : int

    Returns
    -------
    fixed : float
        Seconds to draw the masks of the inputs.
    lookups : tuple of float
        Seconds of each lookup: its keyswitches and bootstraps.
    """
    fixed = sum(
        gate.n_values * n_rows * seconds
        for gate, seconds in zip(parameters.inputs, times.expand, strict=True)
    )

    def switch(key: int | None, n: int) -> float:
        if key is None:
            return 0.0
        alone = n == 1 and n_threads == 1
        return n * (times.keyswitch if alone else times.keyswitch_many)[key] / n_threads

    def apply(step: LookupStep | Extraction, n: int) -> float:
        rounds = -(-n // n_threads)
        return (
            switch(step.keyswitch, n)
            + rounds * times.bootstrap[step.bootstrap]
            + switch(step.convert, n)
        )

    lookups = []
    for step in steps:
        if not isinstance(step, LookupStep):
            # It always gives the same code.
            lookups.append(0.0)
        else:
            n, seconds = len(step.polynomials) * n_rows, 0.0
            if step.extraction is not None:
                seconds += step.extraction.n_removed * apply(step.extraction, n)
            lookups.append(seconds + apply(step, n))
    return fixed / n_threads, tuple(lookups)


def _seconds(run: Callable[[], object]) -> float:
    """Time of the quickest of some runs. What else the machine does only adds to it."""
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)
