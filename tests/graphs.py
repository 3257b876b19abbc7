"""Programs that are more than a chain of layers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cipherlearn import IntegerProgram
from cipherlearn.program._decoder import OutputScaler
from cipherlearn.program._encoder import InputQuantizer
from cipherlearn.program._nodes import Lookup, Sum

CODES = InputQuantizer(3, [0, 1, 2], [[1.0, 2.0, 3.0]] * 3)
ALL = ([0, 1, 2],)


def lookup(reads: int, weights, largest: int = 3, seed: int = 0) -> Lookup:
    """Random tables for a sum of 2-bit inputs."""
    weights = np.asarray(weights)
    low = 3 * np.minimum(weights, 0).sum(axis=1)
    size = 3 * int(np.abs(weights).sum(axis=1).max()) + 1
    rng = np.random.default_rng(seed)
    return Lookup(reads, rng.integers(0, largest + 1, (len(weights), size)), low)


def _two_paths() -> IntegerProgram:
    first, second = [[1, -1, 1], [0, 1, 1]], [[1, 1, 0]]
    nodes = (
        Sum((0,), first),
        lookup(1, first),
        Sum((0,), second),
        lookup(3, second, seed=1),
        Sum((2, 4), [[1, -1, 1], [0, 1, -1]]),
    )
    return IntegerProgram(CODES, ALL, nodes, (5,), OutputScaler([1.0, 0.5], [0.0, 1.0]))


def _skip() -> IntegerProgram:
    first = [[1, -1, 1], [1, 0, -1]]
    nodes = Sum((0,), first), lookup(1, first), Sum((2, 0), [[1, 1, 1, 0, -1], [1, -1, 0, 1, 0]])
    return IntegerProgram(CODES, ALL, nodes, (3,), OutputScaler([1.0, 0.5], [0.0, 1.0]))


def _twice() -> IntegerProgram:
    """A value that two sums read, one of them twice over."""
    first, second = [[1, -1, 1], [1, 0, -1]], [[1, -1]]
    nodes = (
        Sum((0,), first),
        lookup(1, first),
        Sum((2,), second),
        lookup(3, second, seed=2),
        Sum((2, 4, 2), [[1, 0, 1, 0, 1], [0, 1, -1, 1, 0]]),
    )
    return IntegerProgram(CODES, ALL, nodes, (5,), OutputScaler([1.0, 0.5], [0.0, 1.0]))


def _sum_of_sums() -> IntegerProgram:
    """A sum that is looked up, read by another sum, and an output."""
    first = [[1, 0, 1], [0, 1, -1]]
    nodes = Sum((0,), first, [3, -1]), lookup(1, first), Sum((1, 2), [[1, -1, 1, 0]] * 2)
    low = nodes[1].low + np.array([3, -1])
    nodes = nodes[0], Lookup(1, nodes[1].tables, low), nodes[2]
    return IntegerProgram(CODES, ALL, nodes, (1, 3), OutputScaler([1.0] * 4, [0.0, 1.0]))


def _wide_path() -> IntegerProgram:
    """The same codes twice: as narrow inputs of lookups, and as wide ones of sums alone."""
    first = [[1, -1, 1], [1, 0, -1]]
    nodes = (
        Sum((0,), first),
        lookup(2, first),
        Sum((3,), [[1, -1], [0, 2]]),
        Sum((1,), [[100, -37, 41], [-100, 63, -4]]),
    )
    scaler = OutputScaler([1.0, 0.5, 0.01, 0.02], [0.0, 1.0])
    return IntegerProgram(CODES, (*ALL, [0, 1, 2]), nodes, (4, 5), scaler)


# By what they show. Each joins the equality ladder, on every engine.
GRAPHS: dict[str, Callable[[], IntegerProgram]] = {
    "two parallel paths": _two_paths,
    "a skip connection": _skip,
    "a value read twice": _twice,
    "a sum of sums": _sum_of_sums,
    "a wide path beside": _wide_path,
}


def every_code(program: IntegerProgram, n_rows: int, seed: int) -> np.ndarray:
    """Random rows of codes, the smallest and the largest ones first."""
    largest = program.quantizer.largest
    codes = np.random.default_rng(seed).integers(0, largest + 1, (n_rows, len(largest)))
    codes[0], codes[1] = 0, largest
    return codes


def random_graph(seed: int, always: bool = False, n_sums: int = 4) -> IntegerProgram:
    """A graph in which every sum reads some of what came before, and most are looked up.

    With ``always``, some neurons give the same code for every sum, and some weights are 0.
    """
    rng = np.random.default_rng(seed)
    inputs = [rng.choice(3, rng.integers(1, 4), replace=False) for _ in range(rng.integers(1, 3))]
    nodes: list[Sum | Lookup] = []
    # As the program's own proof, for tables to start where sums do.
    ranges = [(np.zeros(len(c), dtype=int), np.full(len(c), 3)) for c in inputs]
    unread = set(range(len(inputs)))
    for i in range(n_sums):
        last = i == n_sums - 1
        some = rng.choice(len(ranges), rng.integers(1, 3)).tolist()
        reads = tuple(unread) if last else tuple(dict.fromkeys(some))
        low, high = (np.concatenate([ranges[v][end] for v in reads]) for end in (0, 1))
        n_neurons = int(rng.integers(1, 4))
        weights = rng.integers(-2, 3, (n_neurons, len(low)))
        if always:
            weights[rng.random(weights.shape) < 0.4] = 0
        constant = rng.integers(-3, 4, n_neurons)
        smallest = np.maximum(weights, 0) @ low + np.minimum(weights, 0) @ high + constant
        largest = np.maximum(weights, 0) @ high + np.minimum(weights, 0) @ low + constant
        nodes.append(Sum(reads, weights, constant))
        unread -= set(reads)
        unread.add(len(ranges))
        ranges.append((smallest, largest))
        if last or rng.random() < 0.3:
            continue
        size = int((largest - smallest).max()) + 1
        lsbs = int(rng.integers(0, 2))
        cells = (smallest[:, None] + np.arange(size) + (1 << lsbs >> 1)) >> lsbs
        tables = np.take_along_axis(
            rng.integers(0, 4, (n_neurons, size + 1)), cells - cells[:, :1], axis=1
        )
        if always:
            tables[rng.random(n_neurons) < 0.4] = rng.integers(0, 4)
        unread.discard(len(ranges) - 1)
        nodes.append(Lookup(len(ranges) - 1, tables, smallest, lsbs))
        unread.add(len(ranges))
        ranges.append((tables.min(axis=1), tables.max(axis=1)))
    n_sums = len(nodes[-1].weights)
    scaler = OutputScaler(rng.normal(size=n_sums), rng.normal(size=n_sums))
    return IntegerProgram(CODES, tuple(inputs), tuple(nodes), (len(ranges) - 1,), scaler)
