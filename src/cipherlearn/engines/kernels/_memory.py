"""Memory of an evaluation: how many rows are evaluated together, and when values are dropped."""

from __future__ import annotations

from collections.abc import Sequence

from cipherlearn._exceptions import ArtefactError
from cipherlearn.engines.kernels._parameters import Parameters
from cipherlearn.engines.kernels._steps import ConstantStep, LookupStep, Step, SumStep

__all__ = ["plan_memory"]

# Largest memory of a value's ciphertexts of the rows that are evaluated together.
_VALUE_BYTES = 2**27

# Of all values that are needed at a time, with copies of them. Inputs and outputs take at most
# half of it a row, as artefacts are checked.
_MAX_BYTES = 2**32


def plan_memory(
    steps: Sequence[Step | None], outputs: Sequence[int], parameters: Parameters
) -> tuple[int, list[list[int]]]:
    """Choose the rows that are evaluated together, and find the last reader of each value.

    Parameters
    ----------
    steps : sequence of steps
    outputs : sequence of int
        Values that are needed to the end.
    parameters : Parameters

    Returns
    -------
    n_rows : int
    last_reads : list of list of int
        The values that no step needs any more, for each step.

    Raises
    ------
    ArtefactError
        If already one row takes too much memory.
    """
    last = {v: n for n, step in enumerate(steps) for v in _reads(step)}
    last_reads: list[list[int]] = [[] for _ in steps]
    for value, number in last.items():
        if value not in outputs:
            last_reads[number].append(value)
    # Words of a ciphertext of each value, and of all its ciphertexts in a row.
    words = [gate.dimension + 1 for gate in parameters.inputs]
    sizes = [gate.n_values * (gate.dimension + 1) for gate in parameters.inputs]
    largest, alive = max(sizes), sum(sizes)
    most = alive
    for number, step in enumerate(steps):
        n_values, copies = 0, 0
        words.append(0)
        if isinstance(step, SumStep):
            n_values, words[-1] = len(step.weights), words[step.reads[0]]
            if len(step.reads) > 1:  # side by side
                copies = sum(sizes[v] for v in step.reads)
        elif isinstance(step, ConstantStep):
            n_values, words[-1] = len(step.bodies), step.dimension + 1
        elif step is not None:
            n_values, (bootstrapped, words[-1]) = len(step.polynomials), _words(step, parameters)
            largest = max(largest, n_values * bootstrapped)
            # Shifted, without the bits that are removed, and with one at the top.
            copies = 3 * sizes[step.reads] + n_values * bootstrapped
        sizes.append(n_values * words[-1])
        largest, alive = max(largest, sizes[-1]), alive + sizes[-1]
        most = max(most, alive + copies)
        alive -= sum(sizes[v] for v in last_reads[number])
    if 8 * most > _MAX_BYTES:
        raise ArtefactError(
            f"The ciphertexts of one row must take at most {_MAX_BYTES} bytes while it is "
            f"evaluated. Those of this program take {8 * most}. Use fewer neurons or features."
        )
    return max(1, min(_VALUE_BYTES // (8 * largest), _MAX_BYTES // (8 * most))), last_reads


def _reads(step: Step | None) -> tuple[int, ...]:
    if isinstance(step, LookupStep):
        return (step.reads,)
    return step.reads if isinstance(step, SumStep) else ()


def _words(step: LookupStep, parameters: Parameters) -> tuple[int, int]:
    """Return the words of a ciphertext after a bootstrap, and after the keyswitch to its result."""
    key = parameters.bootstrap_keys[step.bootstrap]
    bootstrapped = key.k * key.polynomial_size + 1
    if step.convert is None:
        return bootstrapped, bootstrapped
    return bootstrapped, parameters.keyswitch_keys[step.convert].n_out + 1
