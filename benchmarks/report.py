"""Helpers of the benchmarks: machine and versions, Markdown tables, networks, times of a call."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any

import numpy as np

__all__ = [
    "ENCRYPTING",
    "FOUR_BITS",
    "NETWORKS",
    "RUNTIMES",
    "call_seconds",
    "encrypted_environment",
    "environment",
    "floor_seconds",
    "header",
    "machine",
    "row",
    "versions",
]

# Packages that decide how fast and exact an encrypted prediction is.
ENCRYPTING = ("torch", "scikit-learn", "brevitas", "concrete-python", "numpy")
FOUR_BITS = {"module__n_hidden_accum_bits": 4}
NETWORKS = {
    "1 layer": {"module__n_layers": 1},
    "8 neurons, 4 bits": {"module__n_hidden_neurons": 8, **FOUR_BITS},
    "32 neurons, 4 bits": {"module__n_hidden_neurons": 32, **FOUR_BITS},
    "default": {},
}

RUNTIMES = ("kernels", "compiled")

_STAGES = {"expand": "masks", "keyswitch": "keyswitches", "bootstrap": "bootstraps"}


def machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores"


def versions(*packages: str) -> str:
    return ", ".join(f"{name} {version(name)}" for name in packages)


def environment(*packages: str) -> str:
    return f"{machine()}, Python {platform.python_version()}, {versions(*packages)}."


def encrypted_environment() -> str:
    return (
        f"{environment(*ENCRYPTING)} Error probability 2^-40 per bootstrap. Seconds are medians of "
        "the server's computation."
    )


def row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def header(columns: Iterable[str]) -> list[str]:
    """Head a table, with the line below."""
    columns = list(columns)
    return [row(columns), row(["---"] * len(columns))]


def floor_seconds(program: Any, specs: bytes, n_rows: int, rounding: str = "exact") -> float:
    """Time a call's bootstraps and keyswitches, each alone on one thread, divided by the threads.

    Parameters
    ----------
    program : IntegerProgram
    specs : bytes
        Cryptographic parameters of its circuit.
    n_rows : int
    rounding : {"exact", "approximate"}, default="exact"
    """
    from cipherlearn.engines.kernels import (
        Parameters,
        count_threads,
        estimate_kernels,
        time_kernels,
    )

    parameters = Parameters.from_specs(specs)
    alone = estimate_kernels(program, parameters, rounding, time_kernels(parameters, 1), n_rows)
    return (sum(alone.bootstraps) + sum(alone.keyswitches)) / count_threads()


def call_seconds(
    program: Any, codes: np.ndarray, repeats: int, rounding: str = "exact"
) -> dict[str, float]:
    """Measure a call on both runtimes, which take turns and must give what the program gives.

    Returns
    -------
    dict of float
        Medians: "kernels" and "compiled", of a call. "masks", "keyswitches" and "bootstraps", what
        the kernels' call spends in each. "floor", as above. Besides, "estimated".
    """
    from cipherlearn import Circuit
    from cipherlearn.circuit._cost import estimate_cost
    from cipherlearn.engines._options import CompileOptions
    from cipherlearn.engines.concrete_python.server import KernelServer
    from cipherlearn.engines.kernels import CpuBackend, KernelRuntime
    from cipherlearn.engines.kernels._library import load_library

    options = {"batch_size": len(codes), "rounding": rounding}
    widths = [layer.n_accum_bits for layer in program.layers]
    compiled = Circuit(program, widths, **options, runtime="compiled")
    backend = CpuBackend(load_library())
    specs = compiled.files()["specs.json"]
    kernels = KernelRuntime(program, specs, rounding, backend=backend)
    server, spent = KernelServer(kernels, len(codes)), dict.fromkeys(_STAGES.values(), 0.0)

    def timed(call: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = call(*arguments)
            spent[stage] += time.perf_counter() - start
            return result

        return run

    for name, stage in _STAGES.items():
        setattr(backend, name, timed(getattr(backend, name), stage))
    keys, ciphertexts = server.load_keys(compiled.evaluation_keys()), compiled.encrypt(codes)
    calls = {
        "kernels": lambda: server.run([ciphertexts], keys)[0],
        "compiled": lambda: compiled.run(ciphertexts),
    }
    seconds = defaultdict(list)
    for _ in range(repeats + 1):
        for name, call in calls.items():
            spent.update(dict.fromkeys(spent, 0.0))
            start = time.perf_counter()
            result = call()
            seconds[name].append(time.perf_counter() - start)
            np.testing.assert_array_equal(compiled.decrypt(result), program.run(codes))
            if name == "kernels":
                for stage, value in spent.items():
                    seconds[stage].append(value)
        seconds["floor"].append(floor_seconds(program, specs, len(codes), rounding))
    # The first calls make keys ready.
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    return medians | {"estimated": estimate_cost(program, CompileOptions(**options)).seconds}
