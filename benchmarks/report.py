"""Reports of benchmarks: machine and versions, Markdown tables, and the networks of several."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import version

__all__ = [
    "ENCRYPTING",
    "FOUR_BITS",
    "NETWORKS",
    "encrypted_environment",
    "environment",
    "header",
    "machine",
    "row",
    "versions",
]

# Packages that decide how fast and exact an encrypted prediction is.
ENCRYPTING = ("torch", "scikit-learn", "brevitas", "concrete-python", "numpy")
FOUR_BITS = {"module__n_hidden_accum_bits": 4, "module__n_output_accum_bits": 6}
NETWORKS = {
    "1 layer": {"module__n_layers": 1},
    "8 neurons, 4 bits": {"module__n_hidden_neurons": 8, **FOUR_BITS},
    "32 neurons, 4 bits": {"module__n_hidden_neurons": 32, **FOUR_BITS},
    "default": {},
}


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
