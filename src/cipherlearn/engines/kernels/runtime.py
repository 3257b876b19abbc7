"""Evaluate a program on Concrete's kernels, with keys that stay ready for use."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cipherlearn._exceptions import MessageError
from cipherlearn.engines.kernels._backend import Backend, CpuBackend, count_threads
from cipherlearn.engines.kernels._keys import EvaluationKeys, prepare_keys
from cipherlearn.engines.kernels._library import load_library
from cipherlearn.engines.kernels._memory import plan_memory
from cipherlearn.engines.kernels._parameters import Gate, Parameters
from cipherlearn.engines.kernels._plan import make_plan
from cipherlearn.engines.kernels._steps import (
    ConstantStep,
    Extraction,
    LookupStep,
    SumStep,
)
from cipherlearn.engines.kernels._wire import Words, read_value, write_value
from cipherlearn.program._program import IntegerProgram

__all__ = ["KernelRuntime"]

_NOTHING: Words = np.empty((0, 0, 0), dtype=np.uint64)


class KernelRuntime:
    """Evaluation of one program with the keys of any client. It has no way to a secret key.

    May be used from several threads at once.

    Parameters
    ----------
    program : IntegerProgram
    specs : bytes
        The cryptographic parameters of its circuit, as the client has them.
    rounding : {"exact", "approximate"}, default="exact"
        How its circuit removes bits that tables do not see.
    code_bits : sequence of int, default=None
        Bits that the codes of each lookup are encoded with. ``None`` stands for as few as needed,
        which gives less noise than the compiled circuit. With the compiled circuit's own bits,
        results have the very same words.
    backend : Backend, default=None
        Hardware that evaluates. ``None`` stands for this machine's processor.

    Attributes
    ----------
    parameters : Parameters
        The parsed cryptographic parameters.

    Raises
    ------
    ArtefactError
        If the parameters are damaged, or not for the program, or a row takes more than 4 GiB.
    UnsupportedByEngineError
        If only the compiled circuit can evaluate the program.
    EngineNotFoundError
        If the kernels cannot be used here.

    Examples
    --------
    A client encrypts and decrypts, and the runtime evaluates. A linear network has empty keys:

    >>> from cipherlearn import NeuralNetRegressor
    >>> from cipherlearn.engines import load_engine
    >>> from cipherlearn.engines._options import CompileOptions
    >>> from cipherlearn.engines.concrete_python.client import ClientRuntime
    >>> from cipherlearn.engines.kernels import KernelRuntime
    >>> from cipherlearn.program._passes import unsigned
    >>> X, y = [[0.0], [1.0], [2.0], [3.0]], [0.0, 1.0, 2.0, 3.0]
    >>> program = NeuralNetRegressor(module__n_layers=1, max_epochs=5).fit(X, y).program_
    >>> specs = load_engine().compile_program(program, CompileOptions()).files()["specs.json"]
    >>> client, runtime = ClientRuntime(specs), KernelRuntime(program, specs)
    >>> client.generate_keys()
    >>> keys = runtime.load_keys(client.evaluation_keys())
    >>> codes = program.quantize([[2.0]])
    >>> ciphertexts = runtime.read(client.encrypt(program.split(codes)))
    >>> sums = client.decrypt(runtime.write(runtime.run(ciphertexts, keys)))
    >>> bool((sums == unsigned(program).run(codes)).all())
    True
    """

    def __init__(
        self,
        program: IntegerProgram,
        specs: bytes,
        rounding: str = "exact",
        code_bits: Sequence[int] | None = None,
        backend: Backend | None = None,
    ) -> None:
        self.parameters = Parameters.from_specs(specs)
        self._steps = make_plan(program, self.parameters, rounding, code_bits)
        self._outputs = program.outputs
        self._backend = CpuBackend(load_library()) if backend is None else backend
        self._block_rows, self._last_reads = plan_memory(
            self._steps, self._outputs, self.parameters
        )

    def load_keys(self, evaluation_keys: bytes, n_threads: int | None = None) -> EvaluationKeys:
        """Load evaluation keys that Concrete serialized.

        Raises
        ------
        MessageError
            If the keys are damaged, or for other parameters.
        """
        return prepare_keys(
            self.parameters, evaluation_keys, self._backend, count_threads(n_threads)
        )

    @property
    def key_bytes(self) -> int:
        """Bytes of memory that a client's loaded evaluation keys take."""
        return self.parameters.key_bytes

    def read(self, values: Sequence[bytes]) -> list[Words]:
        """Read the ciphertexts of each input, as a client serialized them, for :meth:`run`.

        Raises
        ------
        MessageError
            If ciphertexts are damaged, or for another model.
        """
        self._check_count(values)
        arrays = []
        for value, gate in zip(values, self.parameters.inputs, strict=True):
            words, row = read_value(value), gate.n_values * gate.n_words
            if len(words) == 0 or len(words) % row:
                raise MessageError(
                    f"Rows of this model have {row} words. Got {len(words)} words. "
                    "Encrypt with the model's client.zip."
                )
            arrays.append(words.reshape(-1, gate.n_values, gate.n_words))
        return arrays

    def write(self, results: Sequence[Words]) -> list[bytes]:
        """Serialize the results of :meth:`run` as Concrete does, one value for each output."""
        return [
            write_value(words, gate)
            for words, gate in zip(results, self.parameters.outputs, strict=True)
        ]

    def run(
        self,
        ciphertexts: Sequence[Words],
        keys: EvaluationKeys,
        n_threads: int | None = None,
    ) -> list[Words]:
        """Evaluate any number of rows together, which takes less time a row than one at a time.

        Parameters
        ----------
        ciphertexts : sequence of ndarray of shape (n_rows, n_values, n_words), uint64
            One array for each input.
        keys : EvaluationKeys
            The client's, from :meth:`load_keys`.
        n_threads : int or None, default=None
            Threads to compute in, as for :func:`count_threads`.

        Returns
        -------
        list of ndarray of shape (n_rows, n_values, n_words), uint64
            One array for each output.

        Raises
        ------
        MessageError
            If an array has another shape, or the keys are for other parameters.
        """
        if keys.shapes != self.parameters.key_shapes:
            raise MessageError(
                "These evaluation keys are for other cryptographic parameters than this model's. "
                "Make keys with the model's client.zip."
            )
        self._check_count(ciphertexts)
        arrays = list(map(_checked, ciphertexts, self.parameters.inputs))
        n_rows = len(arrays[0])
        if any(len(array) != n_rows for array in arrays):
            raise MessageError(
                "All inputs must have the same number of rows. "
                f"Got {[len(array) for array in arrays]}."
            )
        n_threads = count_threads(n_threads)
        results: list[Words] = [
            np.empty((n_rows, gate.n_values, gate.n_words), dtype=np.uint64)
            for gate in self.parameters.outputs
        ]
        for start in range(0, n_rows, self._block_rows):
            block = slice(start, start + self._block_rows)
            sums = self._run_block([array[block] for array in arrays], keys, n_threads)
            for result, words in zip(results, sums, strict=True):
                result[block] = words
        return results

    def _check_count(self, inputs: Sequence[object]) -> None:
        if len(inputs) != len(self.parameters.inputs):
            raise MessageError(
                f"This model has {len(self.parameters.inputs)} encrypted inputs. "
                f"Got {len(inputs)}. Encrypt with the model's client.zip."
            )

    def _run_block(self, inputs: list[Words], keys: EvaluationKeys, n_threads: int) -> list[Words]:
        # Values lie neuron by neuron, each with its rows.
        values = [
            self._expand(words.swapaxes(0, 1), gate, n_threads)
            for words, gate in zip(inputs, self.parameters.inputs, strict=True)
        ]
        for step, last_reads in zip(self._steps, self._last_reads, strict=True):
            if isinstance(step, ConstantStep):
                shape = len(step.bodies), len(inputs[0]), step.dimension + 1
                constant = np.zeros(shape, dtype=np.uint64)
                constant[:, :, -1] = step.bodies[:, None]
                values.append(constant)
            elif isinstance(step, SumStep):
                values.append(_add_up(step, [values[v] for v in step.reads]))
            elif step is None:
                values.append(_NOTHING)
            else:
                values.append(self._look_up(step, values[step.reads], keys, n_threads))
            for v in last_reads:
                values[v] = _NOTHING
        return [values[v].swapaxes(0, 1) for v in self._outputs]

    def _expand(self, words: Words, gate: Gate, n_threads: int) -> Words:
        """Expand the seeded ciphertexts of an input."""
        if not gate.seeded:
            return np.ascontiguousarray(words)
        shape = words.shape[:2]
        seeded = np.ascontiguousarray(words).reshape(-1, gate.n_words)
        return self._backend.expand(seeded, gate.dimension, n_threads).reshape(*shape, -1)

    def _look_up(
        self, step: LookupStep, value: Words, keys: EvaluationKeys, n_threads: int
    ) -> Words:
        n_neurons, n_rows, _ = value.shape
        words = value.reshape(n_neurons * n_rows, -1)
        if step.shift or step.offset:
            words = words << np.uint64(step.shift)
            words[:, -1] += np.uint64(step.offset)
        if step.extraction is not None:
            words = self._remove_bits(step.extraction, words, keys, n_threads)
        return self._apply(step, words, step.polynomials, keys, n_threads).reshape(
            n_neurons, n_rows, -1
        )

    def _remove_bits(
        self, step: Extraction, words: Words, keys: EvaluationKeys, n_threads: int
    ) -> Words:
        """Extract and subtract the least significant bits one by one, as compiled circuits do."""
        size = self.parameters.bootstrap_keys[step.bootstrap].polynomial_size
        for i in range(step.n_removed):
            # The bit goes to the top, where the table gives half of it, negated unless it is 1.
            top = words << np.uint64(step.n_bits - i)
            top[:, -1] += np.uint64(2**62)
            half = 2 ** (62 - step.n_bits + i)
            polynomial = np.full((1, size), 2**64 - half, dtype=np.uint64)
            bit = self._apply(step, top, polynomial, keys, n_threads, half)
            words = words - bit
        return words

    def _apply(
        self,
        step: LookupStep | Extraction,
        words: Words,
        polynomials: Words,
        keys: EvaluationKeys,
        n_threads: int,
        offset: int = 0,
    ) -> Words:
        """Keyswitch, bootstrap, add an offset to bodies, and switch to the key of the results."""
        words = self._backend.bootstrap(
            self.parameters.bootstrap_keys[step.bootstrap],
            keys.bootstrap[step.bootstrap],
            self._switch(step.keyswitch, words, keys, n_threads),
            polynomials,
            len(words) // len(polynomials),
            n_threads,
        )
        words[:, -1] += np.uint64(offset)
        return words if step.convert is None else self._switch(step.convert, words, keys, n_threads)

    def _switch(self, key: int, words: Words, keys: EvaluationKeys, n_threads: int) -> Words:
        shape = self.parameters.keyswitch_keys[key]
        return self._backend.keyswitch(shape, keys.keyswitch[key], words, n_threads)


def _add_up(step: SumStep, values: list[Words]) -> Words:
    """Compute integer combinations of ciphertexts, modulo 2**64."""
    inputs = values[0] if len(values) == 1 else np.concatenate(values)
    _, n_rows, n_words = inputs.shape
    sums = step.sparse_weights @ inputs.reshape(len(inputs), -1)
    result: Words = sums.reshape(-1, n_rows, n_words)
    result[:, :, -1] += step.constant[:, None]
    return result


def _checked(words: Words, gate: Gate) -> Words:
    array = np.asarray(words)
    if array.dtype != np.uint64 or array.shape[1:] != (gate.n_values, gate.n_words):
        raise MessageError(
            f"Ciphertexts of this input must be uint64 of shape (n_rows, {gate.n_values}, "
            f"{gate.n_words}). Got {array.dtype} of shape {array.shape}."
        )
    return array
