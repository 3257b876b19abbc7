"""Measurement of the kernels' times on this machine, on random data instead of keys."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn.engines.kernels._backend import CpuBackend, count_threads
from cipherlearn.engines.kernels._library import load_library
from cipherlearn.engines.kernels._parameters import (
    BootstrapKey,
    Gate,
    KeyswitchKey,
    Parameters,
)

__all__ = ["KernelTimes", "time_kernels"]

# Words of a key that are timed: more than caches hold, and quick to draw.
_KEY_WORDS = 2**21

_REPEATS = 3


@dataclass(frozen=True)
class KernelTimes:
    """Seconds that kernels take when ``n_threads`` compute at the same time.

    Parameters
    ----------
    bootstrap : tuple of float
        A bootstrap on each thread, with each key in the order of the parameters.
    keyswitch : tuple of float
        A keyswitch of one ciphertext on all threads, with each key.
    keyswitch_many : tuple of float
        A keyswitch of one of ``n_together`` ciphertexts that are switched together.
    expand : tuple of float
        Expansion of one seeded ciphertext of each input.
    n_threads, n_together : int
    """

    bootstrap: tuple[float, ...]
    keyswitch: tuple[float, ...]
    keyswitch_many: tuple[float, ...]
    expand: tuple[float, ...]
    n_threads: int = 1
    n_together: int = 8

    def keyswitches(self, key: int, n: int) -> float:
        """Estimate the seconds to switch ``n`` ciphertexts together, which read the key once."""
        alone, many = self.keyswitch[key], self.keyswitch_many[key]
        reading = max(0.0, alone - many) / (1 - 1 / self.n_together)
        return (alone - reading) * n + reading


def time_kernels(parameters: Parameters, n_threads: int | None = None) -> KernelTimes:
    """Time the kernels for a circuit's parameters, in about a tenth of a second for each key.

    Parameters
    ----------
    parameters : Parameters
    n_threads : int or None, default=None
        Threads to compute in, as for :func:`count_threads`. They share caches and memory, so that
        one alone is faster.

    Raises
    ------
    EngineNotFoundError
        If the kernels cannot be used here.

    Examples
    --------
    >>> from cipherlearn.engines.kernels import Parameters, time_kernels
    >>> time_kernels(Parameters((), (), (), ()), n_threads=2).n_threads
    2
    """
    backend, rng = CpuBackend(load_library()), np.random.default_rng(0)
    n_threads = count_threads(n_threads)

    def words(*shape: int) -> NDArray[Any]:
        return rng.integers(0, 2**64, shape, dtype=np.uint64)

    def bootstrap(shape: BootstrapKey) -> float:
        # Time is proportional to the words of the mask, so only some of them are timed.
        per_step = shape.n_words // shape.n
        part = replace(shape, n=min(shape.n, max(64, _KEY_WORDS // per_step)))
        key = (1e15 * rng.random(part.n_words)).view(np.complex128)
        polynomials = words(1, shape.polynomial_size)
        inputs = words(n_threads, part.n + 1)
        seconds = _seconds(
            lambda: backend.bootstrap(part, key, inputs, polynomials, n_threads, n_threads)
        )
        return seconds * shape.n / part.n

    def keyswitch(shape: KeyswitchKey, n: int) -> float:
        per_step = shape.n_words // shape.n_in
        part = replace(shape, n_in=min(shape.n_in, max(1, _KEY_WORDS // per_step)))
        key, inputs = words(part.n_words), words(n, part.n_in + 1)
        seconds = _seconds(lambda: backend.keyswitch(part, key, inputs, n_threads))
        return seconds * shape.n_in / part.n_in / n

    def expand(gate: Gate) -> float:
        if not gate.seeded:
            return 0.0
        inputs = words(n_together, gate.n_words)
        return _seconds(lambda: backend.expand(inputs, gate.dimension, n_threads)) / n_together

    n_together = KernelTimes.n_together
    return KernelTimes(
        tuple(map(bootstrap, parameters.bootstrap_keys)),
        tuple(keyswitch(shape, 1) for shape in parameters.keyswitch_keys),
        tuple(keyswitch(shape, n_together) for shape in parameters.keyswitch_keys),
        tuple(map(expand, parameters.inputs)),
        n_threads,
    )


def _seconds(run: Callable[[], object]) -> float:
    """Return the time of the quickest of some runs, the least disturbed by other work."""
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)
