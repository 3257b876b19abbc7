"""An integer program compiled to a circuit on ciphertexts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from cipherlearn._exceptions import AccumulatorOverflowError
from cipherlearn._program import IntArray, IntegerProgram
from cipherlearn.engines import EngineCircuit

__all__ = ["DEFAULT_P_ERROR", "Circuit"]

DEFAULT_P_ERROR = 2.0**-40


class Circuit:
    """A program that runs on encrypted rows.

    Keys are generated when first needed and are never pickled: a copy or an
    unpickled circuit compiles again when used, and makes keys of its own.

    Parameters
    ----------
    program : IntegerProgram
        What to compute.
    n_accum_bits : sequence of int
        Largest accumulator width allowed in each layer, in bits.
    p_error : float or None
        Probability that one bootstrap gives a wrong result. When both
        probabilities are None it is 2**-40.
    global_p_error : float or None
        Probability that a row's result has any wrong bootstrap.
    verbose : bool or int
        Whether to say how long compilation and key generation take.

    Raises
    ------
    AccumulatorOverflowError
        If some input could make a sum exceed ``n_accum_bits``.
    CompilationError
        If no cryptographic parameters fit.
    ValueError
        If both error probabilities are given, or one is not between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> from cipherlearn import NeuralNetClassifier
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> clf = NeuralNetClassifier(module__n_hidden_neurons=2, max_epochs=10)
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
        verbose: bool | int = False,
    ) -> None:
        _check_accumulators(program, n_accum_bits)
        self.program = program
        self._error_probability = _check_error_probability(p_error, global_p_error)
        self._verbose = verbose
        self._has_keys = False
        self._engine_circuit: EngineCircuit | None = None
        self._compiled()

    @property
    def p_error(self) -> float:
        """Error probability of one bootstrap, at most what was asked for."""
        return self._compiled().p_error

    def keygen(self, force: bool = False) -> None:
        """Generate keys, unless there are some and ``force`` is False."""
        if force or not self._has_keys:
            engine_circuit = self._compiled()
            with _stage("Generating keys", self._verbose):
                engine_circuit.generate_keys()
            self._has_keys = True

    def encrypt(self, codes: IntArray) -> Any:
        """Encrypt the codes of one row, of shape (1, n_codes).

        Raises
        ------
        ValueError
            If the shape is wrong or a code is outside the quantizer's range.
        """
        codes = self.program.check_codes(codes)
        if codes.shape[0] != 1:
            raise ValueError(f"A ciphertext holds one row. Got {codes.shape[0]} rows.")
        self.keygen()
        return self._compiled().encrypt(codes)

    def run(self, ciphertext: Any) -> Any:
        """Evaluate the network on an encrypted row."""
        return self._compiled().run(ciphertext)

    def decrypt(self, ciphertext: Any) -> IntArray:
        """Decrypt a result to its accumulators, of shape (1, n_outputs)."""
        return self._compiled().decrypt(ciphertext)

    def execute(self, codes: IntArray, verbose: bool | int = False) -> IntArray:
        """Encrypt, run and decrypt every row of codes, with a progress bar if asked."""
        codes = self.program.check_codes(codes)
        self.keygen()
        return self._map_rows(
            lambda row: self.decrypt(self.run(self.encrypt(row))), codes, "Encrypted rows", verbose
        )

    def simulate(self, codes: IntArray, verbose: bool | int = False) -> IntArray:
        """Run the circuit's noise model, without encryption, on every row of codes."""
        codes = self.program.check_codes(codes)
        return self._map_rows(self._compiled().simulate, codes, "Simulated rows", verbose)

    def evaluation_keys(self) -> bytes:
        """Serialize the keys that a server needs. They hold no secret."""
        self.keygen()
        return self._compiled().evaluation_keys()

    def _map_rows(self, function, codes: IntArray, title: str, verbose: bool | int) -> IntArray:
        results = np.empty((len(codes), self.program.n_outputs), dtype=np.int64)
        for i in tqdm(range(len(codes)), desc=title, unit="row", disable=not verbose):
            results[i] = function(codes[i : i + 1])[0]
        return results

    def _compiled(self) -> EngineCircuit:
        if self._engine_circuit is None:
            from cipherlearn.engines.concrete_python import compile_program

            with _stage("Compiling", self._verbose):
                self._engine_circuit = compile_program(self.program, **self._error_probability)
        return self._engine_circuit

    def __getstate__(self) -> dict[str, Any]:
        # Engine objects do not pickle, and secret keys must not travel.
        return self.__dict__ | {"_engine_circuit": None, "_has_keys": False}


def _check_accumulators(program: IntegerProgram, n_accum_bits: Sequence[int]) -> None:
    if len(n_accum_bits) != len(program.layers):
        raise ValueError(
            f"n_accum_bits needs one width for each of the {len(program.layers)} layers. "
            f"Got {n_accum_bits!r}."
        )
    for i, (layer, allowed) in enumerate(zip(program.layers, n_accum_bits, strict=True)):
        for j, accumulator in enumerate(layer.accumulators):
            if accumulator.n_bits > allowed:
                raise AccumulatorOverflowError(
                    f"Every accumulator must fit its {allowed} bits for every possible "
                    f"input. Neuron {j} of layer {i} sums to between {accumulator.low} "
                    f"and {accumulator.high}, which needs {accumulator.n_bits} bits. Lower "
                    "module__n_hidden_neurons_multiplier, module__n_w_bits or module__n_a_bits, "
                    "enable module__pruning, or raise module__n_accum_bits (in hidden layers "
                    "module__n_hidden_accum_bits), and fit again."
                )


def _check_error_probability(
    p_error: float | None, global_p_error: float | None
) -> dict[str, float | None]:
    if p_error is not None and global_p_error is not None:
        raise ValueError(
            "Give p_error (per bootstrap) or global_p_error (per row), not both. "
            f"Got p_error={p_error!r} and global_p_error={global_p_error!r}."
        )
    if p_error is None and global_p_error is None:
        p_error = DEFAULT_P_ERROR
    for name, value in (("p_error", p_error), ("global_p_error", global_p_error)):
        if value is not None and not 0 < value < 1:
            raise ValueError(f"{name} must be above 0 and below 1. Got {value!r}.")
    return {"p_error": p_error, "global_p_error": global_p_error}


@contextmanager
def _stage(title: str, verbose: bool | int) -> Iterator[None]:
    if not verbose:
        yield
        return
    print(f"{title}...", end=" ", flush=True)
    start = time.perf_counter()
    yield
    print(f"{time.perf_counter() - start:.1f} s", flush=True)
