"""From a program and its parameters to steps: which kernel, with which key and encoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from cipherlearn._exceptions import ArtefactError, UnsupportedByEngineError
from cipherlearn.engines.kernels._parameters import Gate, Parameters
from cipherlearn.engines.kernels._wire import Words
from cipherlearn.program._layer import IntegerLayer
from cipherlearn.program._nodes import Lookup, Sum
from cipherlearn.program._passes import unsigned
from cipherlearn.program._program import IntegerProgram
from cipherlearn.program._values import IntArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["LookupStep", "SumStep", "make_plan", "unsupported"]


@dataclass(frozen=True)
class SumStep:
    """Integer matrix product of ciphertexts, plus a clear constant.

    Parameters
    ----------
    reads : tuple of int
        Values side by side.
    weights : ndarray of shape (n_neurons, n_inputs), int64
    constant : ndarray of shape (n_neurons,), uint64
        Encoded.
    """

    reads: tuple[int, ...]
    weights: IntArray
    constant: Words

    @cached_property
    def sparse_weights(self) -> csr_array:
        """Weights modulo 2**64."""
        # A client never comes here, and imports faster without.
        from scipy.sparse import csr_array

        return csr_array(self.weights.astype(np.uint64))


@dataclass(frozen=True)
class LookupStep:
    """A keyswitch and a bootstrap of every ciphertext.

    Parameters
    ----------
    reads : int
        Its value.
    shift : int
        Bits that ciphertexts are moved to the left before.
    offset : int
        Added to bodies then.
    keyswitch, bootstrap : int
        Positions of the keys among the parameters' own.
    polynomials : ndarray of shape (n_neurons, polynomial_size), uint64
        Tables, encoded.
    """

    reads: int
    shift: int
    offset: int
    keyswitch: int
    bootstrap: int
    polynomials: Words


def unsupported(program: IntegerProgram, rounding: str) -> str | None:
    """Say why the kernels cannot evaluate a program, or return None if they can.

    Parameters
    ----------
    program : IntegerProgram
    rounding : {"exact", "approximate"}

    Examples
    --------
    >>> from cipherlearn import NeuralNetClassifier
    >>> from cipherlearn.engines.kernels import unsupported
    >>> clf = NeuralNetClassifier(max_epochs=5).fit([[0.0], [1.0], [2.0]], [0, 0, 1])
    >>> unsupported(clf.program_, "exact")
    """
    if rounding == "exact" and any(node.lsbs_to_remove for node in program.lookups):
        return 'rounding="exact" removes bits by bootstraps of its own'
    return None


def make_plan(
    program: IntegerProgram, parameters: Parameters, code_bits: Sequence[int] | None = None
) -> list[SumStep | LookupStep]:
    """Make the steps that evaluate a program, one for each of its nodes.

    Parameters
    ----------
    program : IntegerProgram
    parameters : Parameters
        Of its circuit.
    code_bits : sequence of int, default=None
        Bits that the codes of each lookup are encoded with. None stands for as few as the next
        tables or the output need, which gives the least noise.

    Raises
    ------
    ArtefactError
        If the parameters are not for the program.
    UnsupportedByEngineError
        If the circuit has keys that only the compiled circuit knows how to use.
    """
    return _Planner(unsigned(program), parameters, code_bits).steps()


class _Planner:
    """What is known of each value, by its number, on the way to a plan."""

    def __init__(
        self, form: IntegerProgram, parameters: Parameters, code_bits: Sequence[int] | None
    ) -> None:
        self._form, self._parameters = form, parameters
        _check_gates("inputs", parameters.inputs, [len(columns) for columns in form.inputs])
        _check_gates(
            "outputs", parameters.outputs, [len(layer.weights) for layer in form.output_layers]
        )
        self._widths = self._choose_widths(code_bits)
        self._keys = [gate.key for gate in parameters.inputs]
        # The bootstrap keys that tables of so many bits have, in the order of their first use.
        self._of_bits: dict[int, int] = {}

    def steps(self) -> list[SumStep | LookupStep]:
        """Make a step for each node."""
        steps: list[SumStep | LookupStep] = []
        for node in self._form.nodes:
            value = len(self._keys)
            if isinstance(node, Sum):
                keys = {self._keys[v] for v in node.reads}
                if len(keys) > 1:
                    raise _unknown_keys("a sum reads values under different keys")
                self._keys.extend(keys)
                assert node.constant is not None
                constant = node.constant.astype(np.uint64) << np.uint64(63 - self._widths[value])
                steps.append(SumStep(node.reads, node.weights, constant))
            else:
                steps.append(self._look_up(node, value))
        if len(self._of_bits) != len(self._parameters.bootstrap_keys):
            raise _unknown_keys(f"tables of {len(self._of_bits)} bit-widths")
        for value, gate in zip(self._form.outputs, self._parameters.outputs, strict=True):
            if self._keys[value] != gate.key:
                raise _unknown_keys("an output is under another key than it is decrypted with")
        return steps

    def _look_up(self, node: Lookup, value: int) -> LookupStep:
        layer, width = self._form.layer_of(node.reads), self._widths[node.reads]
        n_bits, removed = layer.n_table_bits, node.lsbs_to_remove
        position = self._of_bits.setdefault(n_bits, len(self._of_bits))
        if position >= len(self._parameters.bootstrap_keys):
            raise _unknown_keys(f"tables of at least {position + 1} bit-widths")
        bootstrap = self._parameters.bootstrap_keys[position]
        wanted = self._keys[node.reads], bootstrap.source
        switches = [(key.source, key.target) for key in self._parameters.keyswitch_keys]
        if switches.count(wanted) != 1:
            raise _unknown_keys(f"{switches.count(wanted)} keyswitch keys for a lookup")
        self._keys.append(bootstrap.target)
        polynomials = _polynomials(layer, bootstrap.polynomial_size, self._widths[value])
        # Sums that lie between two entries are drawn to the nearer one, and to the upper one of
        # two: by half a unit of what is removed, less the unit of Concrete's widest encoding.
        offset = 2 ** (62 - n_bits - removed) - 2 if removed else 0
        shift = width - n_bits - removed
        return LookupStep(node.reads, shift, offset, switches.index(wanted), position, polynomials)

    def _choose_widths(self, code_bits: Sequence[int] | None) -> list[int]:
        """Bits of each value's encoding. Values that a sum connects have the same."""
        form, gates = self._form, self._parameters
        connected = list(range(len(form.inputs) + len(form.nodes)))
        needed, given = [1] * len(connected), dict(enumerate(gates.inputs))
        given |= dict(zip(form.outputs, gates.outputs, strict=True))
        widths = {value: gate.width for value, gate in given.items()}
        lookups = iter(code_bits if code_bits is not None else [])
        for value, node in enumerate(form.nodes, len(form.inputs)):
            if isinstance(node, Lookup):
                n_bits = form.layer_of(node.reads).n_table_bits + node.lsbs_to_remove
                needed[node.reads] = max(needed[node.reads], n_bits)
                if code_bits is not None:
                    widths[value] = next(lookups)
                continue
            for read in node.reads:
                joined = {connected[read], connected[value]}
                connected = [min(joined) if c in joined else c for c in connected]
        result = []
        for component in connected:
            members = [v for v, c in enumerate(connected) if c == component]
            least = max(needed[v] for v in members)
            chosen = {widths[v] for v in members if v in widths} or {least}
            if len(chosen) > 1 or min(chosen) < least or max(chosen) > 62:
                raise ArtefactError(
                    f"Values that a sum connects must have one width, of at least {least} and at "
                    f"most 62 bits. Got {sorted(chosen)} bits. Export the model again."
                )
            result.append(chosen.pop())
        return result


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
    """Encode each table as coefficients, entry 0 around the first."""
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
        "The kernels evaluate circuits that have a bootstrap key for each bit-width of tables, and "
        f"one keyswitch key between two keys. This one has others: {what}. "
        "Use the compiled circuit."
    )
