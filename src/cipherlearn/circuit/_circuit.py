"""An integer program compiled to a circuit on ciphertexts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from joblib import effective_n_jobs

from cipherlearn._html import panel, paragraphs
from cipherlearn._progress import stage
from cipherlearn._words import count
from cipherlearn.circuit._accumulators import check_accumulators
from cipherlearn.circuit._circuit_keys import CircuitKeys
from cipherlearn.circuit._flips import measure_flips
from cipherlearn.circuit._joblib import evaluate_batches
from cipherlearn.circuit._row_batches import RowBatches
from cipherlearn.engines import EngineCircuit, engine_name, load_engine
from cipherlearn.engines._options import CompileOptions
from cipherlearn.program._layer_table import layer_table
from cipherlearn.program._passes import output_shift
from cipherlearn.program._program import IntegerProgram
from cipherlearn.program._values import IntArray

__all__ = ["Circuit"]


class Circuit:
    """A program that runs on encrypted rows, a batch at a time.

    Keys are generated when first needed and are never pickled: a copy or an
    unpickled circuit compiles again when used, and makes keys of its own.

    Parameters
    ----------
    program : IntegerProgram
        The program to compute.
    n_accum_bits : sequence of int
        Largest bit-width of accumulators allowed in each layer.
    p_error : float, default=None
        Probability that one bootstrap gives a wrong result. It is 2**-40 if both probabilities
        are ``None``.
    global_p_error : float, default=None
        Probability that a batch's result has any wrong bootstrap.
    batch_size : int, default=1
        Rows of one ciphertext, which share the fixed cost of a call. A batch of fewer rows is
        padded and costs as much.
    rounding : {"exact", "approximate"}, default="exact"
        How layers with ``lsbs_to_remove`` round. "exact" always gives the clear result, and takes
        one more bootstrap, of 1 bit, for each removed bit. "approximate" takes none, and the
        noise of encryption decides sums near the middle between two multiples. ``flip_rate``
        is the share of rows whose result that changes.
    runtime : {"auto", "kernels", "compiled"}, default="auto"
        Whether Concrete's kernels evaluate, which are faster and keep keys in memory, or the
        compiled circuit. "auto" takes the kernels where they can be used. Results are the same.
    verbose : bool or int, default=False
        Whether to print how long compilation and key generation take.

    Raises
    ------
    AccumulatorOverflowError
        If some input could make a sum exceed ``n_accum_bits``.
    CompilationError
        If no cryptographic parameters fit.
    EngineNotFoundError
        If no FHE compiler is installed. It is an ``ImportError``.
    UnsupportedByEngineError
        If the installed compiler lacks the rounding. It is a ``NotImplementedError``.
    ValueError
        If both error probabilities are given, one is not between 0 and 1, ``batch_size`` is not a
        positive integer, or ``rounding`` or ``runtime`` is not one of the choices.

    Examples
    --------
    >>> import numpy as np
    >>> from cipherlearn import NeuralNetClassifier
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> clf = NeuralNetClassifier(
    ...     module__n_hidden_neurons=2, module__n_hidden_accum_bits=3, max_epochs=10, random_state=0
    ... )
    >>> circuit = clf.fit(X, [0, 0, 1, 1]).compile()
    >>> codes = clf.program_.quantize(X[:1])
    >>> ciphertext = circuit.encrypt(codes)            # on the client
    >>> result = circuit.run(ciphertext)               # on the server
    >>> bool((circuit.decrypt(result) == clf.program_.run(codes)).all())
    True
    """

    def __init__(
        self,
        program: IntegerProgram,
        n_accum_bits: Sequence[int],
        p_error: float | None = None,
        global_p_error: float | None = None,
        batch_size: int = 1,
        rounding: str = "exact",
        runtime: str = "auto",
        verbose: bool | int = False,
    ) -> None:
        check_accumulators(program, n_accum_bits)
        self.program = program
        self._n_accum_bits = list(n_accum_bits)
        self._options = CompileOptions(p_error, global_p_error, batch_size, rounding, runtime)
        self._verbose = verbose
        # The circuit's sums start at 0.
        self._shift = output_shift(program)
        self._engine_circuit: EngineCircuit | None = None
        self._keys: CircuitKeys | None = None
        # Threads that share a circuit must not each compile it, or make keys of their own.
        self._lock = threading.RLock()
        self._compiled()

    def __repr__(self) -> str:
        parts = [
            count(len(self.program.layers), "layer"),
            self.program.bootstraps(self.rounding),
            *self._options.notes,
            "keys generated" if self.has_keys else "keys not generated",
        ]
        return f"<Circuit: {', '.join(parts)}>"

    def _repr_html_(self) -> str:
        table = layer_table(self.program.layer_names, self.program.layers)
        return panel("Circuit", table + paragraphs(self.lines))

    @property
    def lines(self) -> list[str]:
        """Sentences about cost, options and keys. Nothing is compiled or loaded for them."""
        keys = "Keys are generated." if self.has_keys else "Keys are generated when first needed."
        return [
            f"{self.program.bootstraps(self.rounding)}.",
            f"{self.engine}, {self._options.error_bound}, rows a call: {self.batch_size}, "
            f"rounding: {self.rounding}.",
            keys,
        ]

    @property
    def has_keys(self) -> bool:
        """Whether keys were generated."""
        return self._keys is not None

    @property
    def options(self) -> dict[str, Any]:
        """Options of compilation by name, as ``compile`` takes them."""
        return self._options.to_dict()

    @property
    def batch_size(self) -> int:
        """Rows of one ciphertext."""
        return self._options.batch_size

    @property
    def rounding(self) -> str:
        """How layers with ``lsbs_to_remove`` round, "exact" or "approximate"."""
        return self._options.rounding

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments that make an equal circuit of the same program."""
        return {"n_accum_bits": self._n_accum_bits, **self.options}

    @cached_property
    def flip_rate(self) -> float:
        """Share of 1000 random rows whose simulated result differs from the clear one."""
        return measure_flips(self.program, self._options, self._verbose)

    @property
    def engine(self) -> str:
        """Name of the FHE compiler, "concrete-python" or "concrete-numpy".

        An unpickled circuit names the installed one, which compiles it when it is used.
        """
        return engine_name() if self._engine_circuit is None else self._engine_circuit.engine

    @property
    def runtime(self) -> str:
        """Runtime in use, "kernels" or "compiled"."""
        return self._compiled().server.runtime

    @property
    def n_bootstraps(self) -> int:
        """Bootstraps of one call, including those of exact rounding."""
        return self._compiled().n_bootstraps

    @property
    def p_error(self) -> float:
        """Error probability of one bootstrap, at most what was asked for."""
        return self._compiled().p_error

    def keygen(self, force: bool = False, verbose: bool | int | None = None) -> None:
        """Generate keys, unless there are some and ``force`` is False.

        Parameters
        ----------
        force : bool, default=False
            Whether to replace present keys. They do not decrypt earlier ciphertexts.
        verbose : bool or int, default=None
            Whether to print how long it takes. ``None`` stands for the circuit's own setting.
        """
        with self._lock:
            if force or self._keys is None:
                verbose = self._verbose if verbose is None else verbose
                self._keys = CircuitKeys(self._compiled(), verbose)

    def encrypt(self, codes: IntArray) -> Sequence[Any]:
        """Encrypt the codes of at most ``batch_size`` rows, of shape (n_rows, n_codes).

        There is one ciphertext for each of the program's inputs.

        Raises
        ------
        ValueError
            If the shape is wrong or a code is outside the quantizer's range.
        """
        batches = RowBatches(self.program, codes, self.batch_size)
        if len(batches) != 1:
            raise ValueError(
                f"A ciphertext of this circuit holds 1 to {self.batch_size} rows. "
                f"Got {len(codes)}. compile(batch_size=...) chooses how many."
            )
        return self._encrypt(batches[0])

    def _encrypt(self, inputs: Sequence[IntArray]) -> Sequence[Any]:
        """Encrypt the codes of each input, of a whole batch."""
        self.keygen()
        return self._compiled().client.encrypt(inputs)

    def run(self, ciphertexts: Sequence[Any]) -> Sequence[Any]:
        """Evaluate the network on an encrypted batch."""
        (results,) = self._evaluate([ciphertexts])
        return results

    def _evaluate(self, batches: Sequence[Sequence[Any]]) -> list[list[Any]]:
        keys = self._present_keys()
        return self._compiled().server.run(batches, keys.ready())

    def _present_keys(self) -> CircuitKeys:
        with self._lock:
            self.keygen()
            assert self._keys is not None
            return self._keys

    def decrypt(self, results: Sequence[Any]) -> IntArray:
        """Decrypt a result to its accumulators, of shape (batch_size, n_sums)."""
        return self._compiled().client.decrypt(results) + self._shift

    def execute(
        self, codes: IntArray, verbose: bool | int = False, n_jobs: int | None = None
    ) -> IntArray:
        """Encrypt, run and decrypt every row of codes, with a progress bar if asked.

        With several jobs the circuit runs in joblib's workers. They get ciphertexts and
        evaluation keys. This process encrypts and decrypts.
        """
        batches = RowBatches(self.program, codes, self.batch_size)
        self.keygen(verbose=verbose or self._verbose)
        keys = self._present_keys()
        # joblib asks for ciphertexts in threads of its own.
        lock = threading.Lock()

        def encrypt(number: int) -> list[Any]:
            with lock:
                return list(self._encrypt(batches[number]))

        def decrypt(result: Sequence[Any]) -> IntArray:
            with lock:
                return self.decrypt(result)

        # A single batch has nothing to share.
        if effective_n_jobs(n_jobs) > 1 and len(batches) > 1:
            evaluation = keys.for_workers(self.program, self._options)
            results = evaluate_batches(encrypt, len(batches), evaluation, n_jobs)
        else:
            results = self._evaluate_here(encrypt, len(batches))
        sums = ((number, decrypt(result)) for number, result in results)
        accumulators = batches.collect(sums, "Encrypted rows", verbose)
        if self._keys is not keys:
            raise RuntimeError(
                "All rows of a prediction must have the same keys. They were replaced by keygen() "
                "meanwhile. Predict again."
            )
        return accumulators

    def simulate(self, codes: IntArray, verbose: bool | int = False) -> IntArray:
        """Run the circuit's noise model, without encryption, on every row of codes."""
        batches = RowBatches(self.program, codes, self.batch_size)
        simulate = self._compiled().simulate
        sums = ((i, simulate(batches[i]) + self._shift) for i in range(len(batches)))
        return batches.collect(sums, "Simulated rows", verbose)

    def _evaluate_here(
        self, encrypt: Callable[[int], list[Any]], n_batches: int
    ) -> Iterator[tuple[int, list[Any]]]:
        n_together = self._compiled().server.batches_together
        for start in range(0, n_batches, n_together):
            numbers = range(start, min(start + n_together, n_batches))
            yield from zip(numbers, self._evaluate(list(map(encrypt, numbers))), strict=True)

    def evaluation_keys(self) -> bytes:
        """Serialize the keys that a server needs, which hold no secret."""
        return self._present_keys().serialize()

    def ciphertext_sizes(self) -> tuple[int, int]:
        """Return the bytes of a batch of encrypted codes and of its encrypted result."""
        inputs = self.encrypt(np.zeros((1, self.program.n_codes), dtype=np.int64))
        return _size(inputs), _size(self.run(inputs))

    def files(self) -> dict[str, bytes]:
        """Return what a client ("specs.json") and a compiled server ("circuit.mlir") need."""
        return self._compiled().files()

    def _compiled(self) -> EngineCircuit:
        with self._lock:
            if self._engine_circuit is None:
                engine = load_engine()
                with stage("Compiling", self._verbose):
                    self._engine_circuit = engine.compile_program(self.program, self._options)
            return self._engine_circuit

    def __getstate__(self) -> dict[str, Any]:
        # Engine objects do not pickle, and secret keys must not travel.
        state = self.__dict__ | {"_engine_circuit": None, "_keys": None}
        return {name: value for name, value in state.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()


def _size(values: Sequence[Any]) -> int:
    """Bytes of ciphertexts, serialized."""
    return sum(len(v if isinstance(v, bytes) else v.serialize()) for v in values)
