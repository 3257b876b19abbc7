"""Passes over a program: one program in, one of the same function out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn.program._decoder import OutputScaler
from cipherlearn.program._nodes import Lookup, Sum
from cipherlearn.program._program import IntegerProgram
from cipherlearn.program._values import IntArray

__all__ = [
    "component_of_values",
    "components",
    "connected",
    "output_shift",
    "simplify",
    "unrounded",
    "unsigned",
]


def simplify(program: IntegerProgram) -> IntegerProgram:
    """Remove neurons and input codes that cannot change any output.

    A neuron cannot if nothing reads it, or if its table gives the same code for every sum that
    its inputs allow. Each removed neuron saves a bootstrap, each removed code a ciphertext.

    Parameters
    ----------
    program : IntegerProgram

    Returns
    -------
    IntegerProgram
        It gives the same outputs for every row.

    Examples
    --------
    >>> import numpy as np
    >>> from cipherlearn import NeuralNetClassifier
    >>> from cipherlearn.program._passes import simplify
    >>> X = np.arange(20.0)[:, None]
    >>> clf = NeuralNetClassifier(max_epochs=5).fit(X, np.arange(20) > 9)
    >>> simplify(clf.program_).n_bootstraps == clf.program_.n_bootstraps  # fit did it
    True
    """
    kept = _needed(program)
    inputs = tuple(columns[kept[v]] for v, columns in enumerate(program.inputs))
    codes = _at_least_one(np.isin(np.arange(program.n_codes), np.concatenate(inputs)))
    quantizer = program.quantizer.take(codes)
    renumbered = np.cumsum(codes) - 1
    nodes: list[Sum | Lookup] = []
    for value, node in enumerate(program.nodes, len(inputs)):
        rows = kept[value]
        if isinstance(node, Lookup):
            tables, low = node.tables[rows], node.low[rows]
            nodes.append(dataclasses.replace(node, tables=tables, low=low))
        else:
            columns = np.concatenate([kept[v] for v in node.reads])
            weights = node.weights[rows]
            # Those that are dropped add what they always are.
            always = np.concatenate([program.ranges[v][0] for v in node.reads])
            assert node.constant is not None
            constant = node.constant[rows] + weights[:, ~columns] @ always[~columns]
            nodes.append(Sum(node.reads, weights[:, columns], constant))
    inputs = tuple(renumbered[columns] for columns in inputs)
    return IntegerProgram(quantizer, inputs, tuple(nodes), program.outputs, program.scaler)


def _needed(program: IntegerProgram) -> list[NDArray[Any]]:
    """Mark the integers of each value that must stay: those that vary and are used."""
    n_inputs = len(program.inputs)
    ranges = program.ranges
    needed = [np.zeros(len(low), dtype=bool) for low, _ in ranges]
    for value in program.outputs:
        needed[value][:] = True

    def need(value: int, integers: NDArray[Any]) -> None:
        low, high = ranges[value]
        needed[value] |= integers & (low != high)

    lookups: dict[int, int] = {}
    for value in reversed(range(len(ranges))):
        needed[value] = _at_least_one(needed[value])
        if value < n_inputs:
            continue
        node = program.nodes[value - n_inputs]
        if isinstance(node, Lookup):
            need(node.reads, needed[value])
            lookups[node.reads] = value
            continue
        if value in lookups:
            # It has a table for every neuron, of those that another sum reads too.
            needed[lookups[value]] = needed[value]
        read = node.weights[needed[value]].any(axis=0)
        parts = np.split(read, np.cumsum([len(needed[v]) for v in node.reads])[:-1])
        for v, part in zip(node.reads, parts, strict=True):
            need(v, part)
    return needed


def _at_least_one(kept: NDArray[Any]) -> NDArray[Any]:
    """Keep a first element where none is needed: a value cannot be empty."""
    return kept if kept.any() else np.arange(len(kept)) == 0


def unsigned(program: IntegerProgram) -> IntegerProgram:
    """Add a constant to every sum so that its smallest value is 0, as circuits need it.

    Where a lookup removes bits, the constant is a multiple of ``2**lsbs_to_remove``, so that the
    smallest sum rounds to 0.

    Parameters
    ----------
    program : IntegerProgram

    Returns
    -------
    IntegerProgram
        It gives the same outputs for every row: its scaler subtracts the constants again.

    Examples
    --------
    >>> from cipherlearn import NeuralNetClassifier
    >>> from cipherlearn.program._passes import unsigned
    >>> clf = NeuralNetClassifier(max_epochs=5).fit([[0.0], [1.0], [2.0]], [0, 0, 1])
    >>> moved = unsigned(clf.program_)
    >>> [layer.low.tolist() for layer in moved.output_layers]  # of the last layer and the wide path
    [[0, 0], [0, 0]]
    >>> bool((moved([[0.5]]) == clf.program_([[0.5]])).all())
    True
    """
    nodes: list[Sum | Lookup] = []
    shifts = [np.zeros(len(columns), dtype=np.int64) for columns in program.inputs]
    layers = iter(program.layers)
    for node in program.nodes:
        if isinstance(node, Lookup):
            nodes.append(dataclasses.replace(node, low=node.low - shifts[node.reads]))
            shifts.append(np.zeros(node.n_neurons, dtype=np.int64))
            continue
        layer = next(layers)
        shifts.append(layer.cell(layer.low) << layer.lsbs_to_remove)
        assert node.constant is not None
        moved = node.weights @ np.concatenate([shifts[v] for v in node.reads])
        nodes.append(dataclasses.replace(node, constant=node.constant + moved - shifts[-1]))
    scaler = program.scaler
    assert scaler.offset is not None
    offset = scaler.offset + np.concatenate([shifts[v] for v in program.outputs])
    return dataclasses.replace(
        program, nodes=tuple(nodes), scaler=dataclasses.replace(scaler, offset=offset)
    )


def output_shift(program: IntegerProgram) -> IntArray:
    """Return how much larger each output's sum is than in the :func:`unsigned` form.

    Parameters
    ----------
    program : IntegerProgram

    Returns
    -------
    ndarray of shape (n_sums,), int64

    Examples
    --------
    >>> from cipherlearn import NeuralNetClassifier
    >>> from cipherlearn.program._passes import output_shift, unsigned
    >>> program = NeuralNetClassifier(max_epochs=5).fit([[0.0], [1.0], [2.0]], [0, 0, 1]).program_
    >>> codes = program.quantize([[0.5]])
    >>> bool((unsigned(program).run(codes) + output_shift(program) == program.run(codes)).all())
    True
    """
    moved, own = unsigned(program).scaler.offset, program.scaler.offset
    assert moved is not None
    assert own is not None
    return moved - own


def components(
    program: IntegerProgram,
) -> list[tuple[IntegerProgram, tuple[int, ...], tuple[int, ...]]]:
    """Split a program into parts that share no value.

    Parameters
    ----------
    program : IntegerProgram

    Returns
    -------
    list of (IntegerProgram, tuple of int, tuple of int)
        Each part, whose outputs are unscaled sums, with the positions of its inputs and outputs
        among those of the program.
    """
    part = component_of_values(program)
    return [_part(program, [p == number for p in part]) for number in sorted(set(part))]


def component_of_values(program: IntegerProgram) -> list[int]:
    """Return the number of each value's component, ascending in the order of :func:`components`.

    Examples
    --------
    >>> from cipherlearn import NeuralNetClassifier
    >>> from cipherlearn.program._passes import component_of_values
    >>> clf = NeuralNetClassifier(max_epochs=5).fit([[0.0], [1.0], [2.0]], [0, 0, 1])
    >>> component_of_values(clf.program_)  # the wide path is the second input and the last sum
    [0, 1, 0, 0, 0, 1]
    """
    n_inputs = len(program.inputs)
    links = (
        (value, read)
        for value, node in enumerate(program.nodes, n_inputs)
        for read in ({node.reads} if isinstance(node, Lookup) else set(node.reads))
    )
    return connected(n_inputs + len(program.nodes), links)


def connected(n_values: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """Group values that links join, and name the group of each value by its first member.

    Examples
    --------
    >>> from cipherlearn.program._passes import connected
    >>> connected(5, [(1, 3), (3, 4)])
    [0, 1, 2, 1, 1]
    """
    first = list(range(n_values))

    def find(value: int) -> int:
        while first[value] != value:
            first[value] = value = first[first[value]]
        return value

    for one, other in links:
        low, high = sorted((find(one), find(other)))
        first[high] = low
    return list(map(find, range(n_values)))


def _part(
    program: IntegerProgram, is_in: list[bool]
) -> tuple[IntegerProgram, tuple[int, ...], tuple[int, ...]]:
    n_inputs = len(program.inputs)
    number = (np.cumsum(is_in) - 1).tolist()
    nodes: list[Sum | Lookup] = []
    for node, is_here in zip(program.nodes, is_in[n_inputs:], strict=True):
        if is_here and isinstance(node, Lookup):
            nodes.append(dataclasses.replace(node, reads=number[node.reads]))
        elif is_here and isinstance(node, Sum):
            nodes.append(dataclasses.replace(node, reads=tuple(number[v] for v in node.reads)))
    inputs = tuple(i for i in range(n_inputs) if is_in[i])
    outputs = tuple(i for i, value in enumerate(program.outputs) if is_in[value])
    values = [program.outputs[i] for i in outputs]
    n_sums = sum(len(program.layer_of(value).weights) for value in values)
    part = IntegerProgram(
        program.quantizer,
        tuple(program.inputs[i] for i in inputs),
        tuple(nodes),
        tuple(number[value] for value in values),
        OutputScaler(np.ones(n_sums, np.float32), np.zeros(n_sums, np.float32)),
    )
    return part, inputs, outputs


def unrounded(program: IntegerProgram) -> IntegerProgram:
    """Have every table see whole sums. It gives the same codes for each, in more bits."""
    nodes = (
        dataclasses.replace(node, lsbs_to_remove=0) if isinstance(node, Lookup) else node
        for node in program.nodes
    )
    return dataclasses.replace(program, nodes=tuple(nodes))
