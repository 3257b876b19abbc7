"""How long the kernels take on this machine, measured on random data: no keys are needed."""

from __future__ import annotations

import time
from collections.abc import Callable
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

__all__ = ["KernelEstimate", "KernelTimes", "time_kernels"]

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


@dataclass(frozen=True)
class KernelEstimate:
    """Seconds that an evaluation is expected to take.

    Parameters
    ----------
    masks : float
        To draw the masks of the inputs.
    bootstraps, keyswitches : tuple of float
        Of each lookup of the program.
    """

    masks: float
    bootstraps: tuple[float, ...]
    keyswitches: tuple[float, ...]


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


def _seconds(run: Callable[[], object]) -> float:
    """Time of the quickest of some runs. What else the machine does only adds to it."""
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)
