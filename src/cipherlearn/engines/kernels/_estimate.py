"""Estimates of an evaluation's time from the times of single kernels."""

from __future__ import annotations

from dataclasses import dataclass

from cipherlearn.engines.kernels._parameters import Parameters
from cipherlearn.engines.kernels._plan import make_plan
from cipherlearn.engines.kernels._steps import Extraction, LookupStep
from cipherlearn.engines.kernels._times import KernelTimes
from cipherlearn.program._nodes import Lookup
from cipherlearn.program._program import IntegerProgram

__all__ = ["KernelEstimate", "estimate_kernels"]


@dataclass(frozen=True)
class KernelEstimate:
    """Seconds that an evaluation is expected to take.

    Parameters
    ----------
    masks : float
        Time to expand the seeded inputs.
    bootstraps, keyswitches : tuple of float
        Time for each lookup of the program.
    """

    masks: float
    bootstraps: tuple[float, ...]
    keyswitches: tuple[float, ...]


def estimate_kernels(
    program: IntegerProgram,
    parameters: Parameters,
    rounding: str,
    times: KernelTimes,
    n_rows: int = 1,
) -> KernelEstimate:
    """Estimate the seconds that the kernels take for a program, without keys.

    Parameters
    ----------
    program : IntegerProgram
    parameters : Parameters
        Cryptographic parameters of its circuit.
    rounding : {"exact", "approximate"}
        How its circuit removes bits that tables do not see.
    times : KernelTimes
        Times for these parameters from :func:`time_kernels`, with the threads that will evaluate.
    n_rows : int, default=1
        Rows that are evaluated together.
    """
    masks = sum(
        gate.n_values * n_rows * seconds
        for gate, seconds in zip(parameters.inputs, times.expand, strict=True)
    )
    bootstraps, keyswitches = [], []
    steps = make_plan(program, parameters, rounding)
    for node, step in zip(program.nodes, steps, strict=True):
        if not isinstance(node, Lookup):
            continue
        # A lookup that always gives the same code takes no bootstrap.
        repeated: list[tuple[LookupStep | Extraction, int]] = []
        n = 0
        if isinstance(step, LookupStep):
            n = len(step.polynomials) * n_rows
            repeated.append((step, 1))
            if step.extraction is not None:
                repeated.append((step.extraction, step.extraction.n_removed))
        # Bootstraps of the thread that does most of them.
        n_rounds = -(-n // times.n_threads)
        bootstraps.append(
            sum(repeats * n_rounds * times.bootstrap[part.bootstrap] for part, repeats in repeated)
        )
        keyswitches.append(
            sum(
                repeats * times.keyswitches(key, n)
                for part, repeats in repeated
                for key in (part.keyswitch, part.convert)
                if key is not None
            )
        )
    return KernelEstimate(masks, tuple(bootstraps), tuple(keyswitches))
