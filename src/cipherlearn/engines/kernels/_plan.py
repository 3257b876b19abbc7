"""Planning of an evaluation: kernels, keys and encodings for each node of a program."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cipherlearn._exceptions import ArtefactError, UnsupportedByEngineError
from cipherlearn.engines.kernels._parameters import Gate, Parameters
from cipherlearn.engines.kernels._steps import (
    ConstantStep,
    Extraction,
    LookupStep,
    Step,
    SumStep,
)
from cipherlearn.engines.kernels._wire import Words
from cipherlearn.program._layer import IntegerLayer
from cipherlearn.program._nodes import Lookup, Sum
from cipherlearn.program._passes import connected, unsigned
from cipherlearn.program._program import IntegerProgram
from cipherlearn.program._values import IntArray

__all__ = ["make_plan"]

# Stands for the table that extracts one bit, which has keys of its own.
_EXTRACTED = 0

# Memory of all tables. That of a neuron of 4 bits takes 16 kB.
_MAX_TABLE_BYTES = 1 << 31


def make_plan(
    program: IntegerProgram,
    parameters: Parameters,
    rounding: str,
    code_bits: Sequence[int] | None = None,
) -> list[Step | None]:
    """Make the steps that evaluate a program, one for each node.

    Parameters
    ----------
    program : IntegerProgram
    parameters : Parameters
        Cryptographic parameters of its circuit.
    rounding : {"exact", "approximate"}
        How the circuit removes bits.
    code_bits : sequence of int, default=None
        Bits that the codes of each lookup are encoded with, without constant lookups. ``None``
        stands for as few as the next tables or the output need, which gives the least noise.

    Returns
    -------
    list of steps
        ``None`` stands for a node that no output depends on.

    Raises
    ------
    ArtefactError
        If the parameters are not for the program.
    UnsupportedByEngineError
        If it is unknown which keys the circuit uses where.
    """
    return _Planner(unsigned(program), parameters, rounding == "exact", code_bits).steps()


class _Planner:
    """Widths, keys and groups of a program's values by their number, from which steps are made.

    The compiler makes a bootstrap key for each bit-width of tables. Values that sums connect, a
    group, have one encoding and are under one key.
    """

    def __init__(
        self,
        form: IntegerProgram,
        parameters: Parameters,
        is_exact: bool,
        code_bits: Sequence[int] | None,
    ) -> None:
        self._form, self._parameters, self._is_exact = form, parameters, is_exact
        self._switches = [(key.source, key.target) for key in parameters.keyswitch_keys]
        sizes = [len(layer.weights) for layer in form.output_layers]
        _check_gates("inputs", parameters.inputs, [len(columns) for columns in form.inputs])
        _check_gates("outputs", parameters.outputs, sizes)
        self._gates = list(zip(range(len(form.inputs)), parameters.inputs, strict=True))
        self._gates += zip(form.outputs, parameters.outputs, strict=True)
        self._constants, self._varying = self._split_lookups()
        self._read = self._find_read()
        self._lookups = {v: node for v, node in self._varying.items() if v in self._read}
        self._groups = self._connect()
        self._widths = self._choose_widths(code_bits)
        self._bootstraps = self._choose_bootstraps()
        self._keys = self._choose_keys()
        self._uses: dict[tuple[int, int], list[int | None]] = {}
        self._n_table_bytes = 0

    def _split_lookups(self) -> tuple[dict[int, IntArray], dict[int, Lookup]]:
        """Split lookups into the codes of constant ones, and all others."""
        constants, varying = {}, {}
        for value, node in enumerate(self._form.nodes, len(self._form.inputs)):
            if isinstance(node, Lookup):
                codes = self._form.layer_of(node.reads).cell_tables
                if (codes == codes[0, 0]).all():
                    constants[value] = codes[:, 0]
                else:
                    varying[value] = node
        return constants, varying

    def _find_read(self) -> set[int]:
        """Return the values that outputs depend on."""
        read = set(self._form.outputs)
        nodes = list(enumerate(self._form.nodes, len(self._form.inputs)))
        for value, node in reversed(nodes):
            if value not in read or value in self._constants:
                continue
            if isinstance(node, Lookup):
                read.add(node.reads)
            else:
                read.update(v for v, part in self._parts(node) if part.any())
        return read

    def _parts(self, node: Sum) -> list[tuple[int, IntArray]]:
        """Return the values that a sum reads, and its weights for each."""
        sizes = (len(self._form.ranges[v][0]) for v in node.reads)
        return list(zip(node.reads, node.parts(sizes), strict=True))

    def steps(self) -> list[Step | None]:
        """Make a step for each node, or ``None`` if no output depends on it."""
        steps: list[Step | None] = []
        for value, node in enumerate(self._form.nodes, len(self._form.inputs)):
            if value not in self._read:
                steps.append(None)
            elif value in self._constants:
                steps.append(self._constant(value, self._constants[value]))
            elif isinstance(node, Lookup):
                steps.append(self._look_up(value, node))
            else:
                steps.append(self._add_up(value, node))
        self._check_uses()
        return steps

    def _add_up(self, value: int, node: Sum) -> ConstantStep | SumStep:
        assert node.constant is not None
        parts = [(v, part) for v, part in self._parts(node) if part.any()]
        if not parts:
            return self._constant(value, node.constant)
        reads, weights = zip(*parts, strict=True)
        return SumStep(reads, np.concatenate(weights, axis=1), self._encode(value, node.constant))

    def _constant(self, value: int, integers: IntArray) -> ConstantStep:
        key_sizes = {gate.key: gate.dimension for _, gate in self._gates}
        for key in self._parameters.bootstrap_keys:
            key_sizes[key.target] = key.k * key.polynomial_size
        dimension = key_sizes[self._keys[self._groups[value]]]
        return ConstantStep(dimension, self._encode(value, integers))

    def _encode(self, value: int, integers: IntArray) -> Words:
        """Encode integers as bodies of ciphertexts of a value."""
        shift = np.uint64(63 - self._widths[self._groups[value]])
        encoded: Words = integers.astype(np.uint64) << shift
        return encoded

    def _look_up(self, value: int, node: Lookup) -> LookupStep:
        layer, removed = self._form.layer_of(node.reads), node.lsbs_to_remove
        n_bits = layer.n_table_bits + removed
        read, given = self._groups[node.reads], self._groups[value]
        offset, extraction = 0, None
        if removed and self._is_exact:
            offset = 2 ** (62 - layer.n_table_bits)
            extraction = Extraction(n_bits, removed, *self._apply(read, _EXTRACTED, read))
        elif removed:
            # Sums half-way between two entries belong to the upper one, to which the bits that
            # are removed draw others too: less so by the unit of Concrete's widest encoding.
            offset = 2 ** (62 - n_bits) - 2
        keyswitch, bootstrap, convert = self._apply(read, layer.n_table_bits, given)
        size = self._parameters.bootstrap_keys[bootstrap].polynomial_size
        self._n_table_bytes += 8 * size * len(layer.weights)
        if self._n_table_bytes > _MAX_TABLE_BYTES:
            raise ArtefactError(
                f"Tables must take at most {_MAX_TABLE_BYTES} bytes as polynomials. These take "
                f"{self._n_table_bytes} or more. Use fewer neurons, or fewer bits."
            )
        return LookupStep(
            reads=node.reads,
            shift=self._widths[read] - n_bits,
            offset=offset,
            extraction=extraction,
            keyswitch=keyswitch,
            bootstrap=bootstrap,
            polynomials=_polynomials(layer, size, self._widths[given]),
            convert=convert,
        )

    def _apply(self, read: int, n_bits: int, given: int) -> tuple[int, int, int | None]:
        """Return the keys for tables of ``n_bits`` bits between two groups of ciphertexts.

        They are the positions of the keyswitch key before the bootstrap, the bootstrap key, and
        the keyswitch key after it.
        """
        bootstrap = self._bootstraps[n_bits]
        key = self._parameters.bootstrap_keys[bootstrap]
        keyswitch = self._switch(self._keys[read], key.source, n_bits)
        is_there = key.target == self._keys[given]
        convert = None if is_there else self._switch(key.target, self._keys[given], None)
        return keyswitch, bootstrap, convert

    def _switch(self, source: int, target: int, n_bits: int | None) -> int:
        """Return the position of the keyswitch key between two secret keys for some tables.

        Keyswitch keys between the same two keys are in the order in which lookups first use them.
        """
        uses = self._uses.setdefault((source, target), [])
        if n_bits not in uses:
            uses.append(n_bits)
        found = [i for i, key in enumerate(self._switches) if key == (source, target)]
        position = 0 if len(found) == 1 else uses.index(n_bits)
        if position >= len(found):
            raise _unknown_keys(f"{len(found)} keys for a keyswitch")
        return found[position]

    def _check_uses(self) -> None:
        """Raise UnsupportedByEngineError if a keyswitch key is not used."""
        for pair in set(self._switches):
            n_keys, n_uses = self._switches.count(pair), len(self._uses.get(pair, ()))
            if n_keys > n_uses:
                raise _unknown_keys(f"{n_keys} keys for {n_uses} kinds of keyswitches")

    def _connect(self) -> list[int]:
        """Group values that sums connect, named by the first value of each group."""
        n_inputs = len(self._form.inputs)
        links = (
            (value, read)
            for value, node in enumerate(self._form.nodes, n_inputs)
            if isinstance(node, Sum)
            for read in set(node.reads)
        )
        return connected(n_inputs + len(self._form.nodes), links)

    def _choose_widths(self, code_bits: Sequence[int] | None) -> dict[int, int]:
        """Choose the bits of each group's encoding."""
        needed = dict.fromkeys(self._groups, 1)
        given: dict[int, set[int]] = {group: set() for group in self._groups}
        for value, gate in self._gates:
            given[self._groups[value]].add(gate.width)
        for node in self._lookups.values():
            n_bits = self._form.layer_of(node.reads).n_table_bits + node.lsbs_to_remove
            group = self._groups[node.reads]
            needed[group] = max(needed[group], n_bits)
        if code_bits is not None:
            for value, width in zip(self._varying, code_bits, strict=True):
                given[self._groups[value]].add(width)
        for group, widths in given.items():
            least = needed[group]
            if len(widths) > 1 or (widths and not least <= min(widths) <= 62):
                raise ArtefactError(
                    f"Values that a sum connects must have one width, of {least} to 62 bits. "
                    f"Got {sorted(widths)}. Export the model again."
                )
        return {g: widths.pop() if widths else needed[g] for g, widths in given.items()}

    def _choose_bootstraps(self) -> dict[int, int]:
        """Find the bootstrap key of tables by their bits. Keys are in the order of first use.

        The compiler makes one key for all tables where several would not pay.
        """
        chosen: dict[int, int] = {}
        for node in self._lookups.values():
            if node.lsbs_to_remove and self._is_exact:
                chosen.setdefault(_EXTRACTED, len(chosen))
            chosen.setdefault(self._form.layer_of(node.reads).n_table_bits, len(chosen))
        n_keys = len(self._parameters.bootstrap_keys)
        if n_keys == 1:
            return dict.fromkeys(chosen, 0)
        if len(chosen) != n_keys:
            raise _unknown_keys(f"{n_keys} keys for tables of {sorted(chosen)} bits")
        return chosen

    def _choose_keys(self) -> dict[int, int]:
        """Choose the secret key of each group, which results of its bootstraps can have."""
        sources: dict[int, set[int]] = {group: set() for group in self._groups}
        for value, node in self._lookups.items():
            n_bits = self._form.layer_of(node.reads).n_table_bits
            sources[self._groups[value]].add(self._target(n_bits))
            if node.lsbs_to_remove and self._is_exact:
                sources[self._groups[node.reads]].add(self._target(_EXTRACTED))
        given: dict[int, set[int]] = {group: set() for group in self._groups}
        for value, gate in self._gates:
            given[self._groups[value]].add(gate.key)
        chosen = {}
        for group, found in sources.items():
            possible = [
                key
                # A group of constants may be under any.
                for key in given[group] or found or {self._parameters.outputs[0].key}
                if all(source == key or (source, key) in self._switches for source in found)
            ]
            if len(possible) != 1 or len(given[group]) > 1:
                raise _unknown_keys(f"{len(possible)} for values that a sum connects")
            chosen[group] = possible[0]
        return chosen

    def _target(self, n_bits: int) -> int:
        """Return the id of the secret key after a bootstrap with tables of ``n_bits`` bits."""
        return self._parameters.bootstrap_keys[self._bootstraps[n_bits]].target


def _check_gates(kind: str, gates: Sequence[Gate], sizes: Sequence[int]) -> None:
    if [gate.n_values for gate in gates] != list(sizes):
        raise ArtefactError(
            f"The {kind} of the program have {list(sizes)} values. The cryptographic parameters "
            f"are for {[gate.n_values for gate in gates]}. Export the model again."
        )
    if len({gate.batch_size for gate in gates}) != 1:
        raise ArtefactError(f"The {kind} must have one batch size. Export the model again.")
    if kind == "outputs" and any(gate.seeded for gate in gates):
        raise ArtefactError("Outputs must not be compressed. Export the model again.")


def _polynomials(layer: IntegerLayer, size: int, width: int) -> Words:
    """Encode each table as coefficients of a polynomial, with entry 0 around the first one."""
    tables = layer.cell_tables.astype(np.uint64) << np.uint64(63 - width)
    box = size // tables.shape[1]
    if box < 2:
        raise ArtefactError(
            f"Tables of {tables.shape[1]} entries need polynomials of twice as many coefficients. "
            f"Got {size}. Export the model again."
        )
    polynomials: Words = np.roll(np.repeat(tables, box, axis=1), -(box // 2), axis=1)
    polynomials[:, -(box // 2) :] *= np.uint64(2**64 - 1)
    return polynomials


def _unknown_keys(what: str) -> UnsupportedByEngineError:
    return UnsupportedByEngineError(
        "The kernels evaluate circuits with one bootstrap key for each bit-width of tables, and "
        f"one key to switch between two. Got others: {what}. Use the compiled circuit."
    )
