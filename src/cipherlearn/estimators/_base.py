"""Base of both estimators: a trained network that compiles and predicts encrypted."""

# What it imports is in no environment of the other engine.
# engine: concrete-python

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from cipherlearn._checks import check_execute_in_fhe
from cipherlearn._exceptions import CipherlearnError
from cipherlearn._html import ShowsState
from cipherlearn._progress import say
from cipherlearn.circuit._circuit import Circuit
from cipherlearn.circuit._cost import CostEstimate, estimate_cost
from cipherlearn.engines._options import CompileOptions
from cipherlearn.estimators._names import ATTRIBUTES, COMPILE_ARGUMENTS, refusing
from cipherlearn.estimators._persistence import plain_state, restore
from cipherlearn.estimators._quantized import QuantizedNet
from cipherlearn.estimators._skorch import is_skorch_state
from cipherlearn.estimators._twin import float_twin
from cipherlearn.inspection._report import Report, make_report
from cipherlearn.inspection._state_panel import state_panel
from cipherlearn.training._layer_limits import layer_limits
from cipherlearn.training._reference import describe_scores

if TYPE_CHECKING:
    from cipherlearn.inspection._card import ModelCard

__all__ = ["EncryptedPredictionNet", "NotCompiledError"]


class NotCompiledError(CipherlearnError, NotFittedError):
    """Encrypted prediction was asked of an estimator before ``compile()``."""


class EncryptedPredictionNet(ShowsState, QuantizedNet):
    """Base of both estimators: a net that compiles to a circuit and predicts on encrypted rows."""

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            if name in ATTRIBUTES:
                raise AttributeError(
                    f"{type(self).__name__} has no attribute {name!r} (Concrete-ML has it). "
                    f"Use {ATTRIBUTES[name]}."
                )
            # Python's own message, or a property's.
            return super().__getattribute__(name)

    @refusing(COMPILE_ARGUMENTS)
    def compile(
        self,
        p_error: float | None = None,
        global_p_error: float | None = None,
        batch_size: int = 1,
        rounding: str = "exact",
        runtime: str = "auto",
        verbose: int | None = None,
    ) -> Circuit:
        """Compile the trained network to a circuit on encrypted data.

        No data is needed: the range of every sum is proven from the integer weights,
        for every possible input.

        Parameters
        ----------
        p_error : float or None, default=None
            Probability that one bootstrap gives a wrong result. When neither probability
            is given it is 2**-40.
        global_p_error : float or None, default=None
            Probability that the prediction of a batch has any wrong bootstrap. Give at most
            one of the two.
        batch_size : int, default=1
            Rows that are encrypted together. They share the fixed cost of a call, so more rows
            a second are predicted, and a single row takes longer.
        rounding : {"exact", "approximate"}, default="exact"
            How ``module__rounding_bits`` is carried out. "exact" predicts what the clear network
            predicts, always. "approximate" is faster and lets the noise of encryption decide
            close cases; ``circuit_.flip_rate`` says how often that changes a result.
        runtime : {"auto", "kernels", "compiled"}, default="auto"
            What evaluates. "kernels" calls Concrete's kernels, with keys that stay ready in
            memory, and is faster. "compiled" runs the circuit that its compiler wrote. "auto"
            takes the kernels where they can be used, and ``circuit_.runtime`` says which that
            is. Predictions are the same.
        verbose : int or None, default=None
            Whether to show the time of each stage. ``None`` takes the estimator's own.

        Returns
        -------
        Circuit
            The circuit, which is also kept as ``circuit_``.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        AccumulatorOverflowError
            If some input could make a sum exceed ``module__n_accum_bits``. It is a
            ``ValueError`` that names the layer, the neuron and the bits.
        CompilationError
            If no cryptographic parameters fit.
        EngineNotFoundError
            If no FHE compiler is installed. It is an ``ImportError`` with the line that installs
            one.
        UnsupportedByEngineError
            If the installed one lacks the rounding. It is a ``NotImplementedError``.
        """
        if p_error is not None and np.ndim(p_error):
            raise TypeError(
                "compile() needs no data, since ranges are proven from the weights. Got "
                f"{type(p_error).__name__} as p_error. Call compile()."
            )
        check_is_fitted(self)
        verbose = self.verbose if verbose is None else verbose
        self.circuit_ = Circuit(
            self.program_,
            n_accum_bits=layer_limits(self).accum_bits,
            p_error=p_error,
            global_p_error=global_p_error,
            batch_size=batch_size,
            rounding=rounding,
            runtime=runtime,
            verbose=verbose,
        )
        if rounding == "approximate" and self.circuit_.flip_rate and verbose:
            flips = f"{100 * self.circuit_.flip_rate:.1f} %"
            say(f"Approximate rounding changes {flips} of the rows.", verbose)
        return self.circuit_

    @property
    def engine_(self) -> str:
        """Name of the FHE compiler behind ``circuit_``."""
        return self.circuit_.engine

    def estimate(
        self,
        p_error: float | None = None,
        global_p_error: float | None = None,
        batch_size: int = 1,
        rounding: str = "exact",
        runtime: str = "auto",
        verbose: int | None = None,
    ) -> CostEstimate:
        """Estimate the cost of encrypted prediction on this machine, before compiling.

        The compiler chooses the cryptographic parameters, and Concrete's kernels are timed for
        them on random data, which takes about a second; no keys are made. Where the kernels
        cannot be used, the circuit itself is timed.

        Parameters
        ----------
        p_error, global_p_error, batch_size, rounding, runtime
            As for :meth:`compile`.
        verbose : int or None, default=None
            Whether to say how long it takes. ``None`` takes the estimator's own.

        Returns
        -------
        CostEstimate
            Bootstraps and their precision, expected latency, and sizes of keys and ciphertexts.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        CompilationError
            If no cryptographic parameters fit.
        """
        check_is_fitted(self)
        verbose = self.verbose if verbose is None else verbose
        options = CompileOptions(p_error, global_p_error, batch_size, rounding, runtime)
        return estimate_cost(self.program_, options, verbose)

    def report(self, X: ArrayLike | None = None, **compile_options) -> Report:
        """Describe what each layer holds and what it costs on ciphertexts.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features), default=None
            Rows on which the width of the accumulators is observed, beside what is proven.
        **compile_options
            As for :meth:`estimate`. Without any, those of the present circuit, if compiled.

        Returns
        -------
        Report
            Prints as text, shows as a table in notebooks, and has a ``plot`` method.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        """
        check_is_fitted(self)
        circuit = None if compile_options else getattr(self, "circuit_", None)
        options = compile_options if circuit is None else circuit.options
        limits = layer_limits(self)
        return make_report(
            self.program_,
            limits.n_neurons,
            limits.budgets,
            limits.accum_bits,
            self.estimate(**options),
            None if X is None else self._check_features(X),
            None if circuit is None or circuit.rounding == "exact" else circuit.flip_rate,
            describe_scores(self),
        )

    def card(self, X: ArrayLike | None = None, y: ArrayLike | None = None) -> ModelCard:
        """Make a model card: what the network is, how good, what it costs and protects.

        The step before a network in a Pipeline is not part of the card. Describe the network on
        the rows that it receives: ``pipe[-1].card(pipe[:-1].transform(X), y)``.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features), default=None
            Rows to evaluate on, that training did not see. Only counts and scores of them are
            told. ``None`` leaves the evaluation out.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Their labels or targets.

        Returns
        -------
        skops.card.Card
            In the format of the Hugging Face Hub. ``save("README.md")`` writes it, ``add`` changes
            a section, and the dict ``front_matter`` holds the Hub's metadata.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        ImportError
            If skops is not installed.
        ValueError
            If only one of ``X`` and ``y`` is given.

        Examples
        --------
        >>> from cipherlearn import NeuralNetClassifier
        >>> X, y = [[0.0], [1.0], [2.0], [3.0]], ["no", "no", "yes", "yes"]
        >>> clf = NeuralNetClassifier(module__n_layers=1, max_epochs=5).fit(X, y)
        >>> card = clf.card(X, y)
        >>> card = card.add(**{"Intended use and limits": "To show what a card is."})
        >>> card.front_matter["license"] = "mit"
        >>> print(card.render())  # doctest: +ELLIPSIS
        ---
        library_name: "cipherlearn"
        ...
        """
        check_is_fitted(self)
        # It needs skops.
        from cipherlearn.inspection._card import make_card

        return make_card(self, X, y)

    def _decide(
        self, X: ArrayLike, execute_in_fhe: bool | str, n_jobs: int | None
    ) -> NDArray[np.float32]:
        """Network outputs of shape (n_samples, n_outputs), in the clear or encrypted."""
        execute_in_fhe = check_execute_in_fhe(execute_in_fhe)
        check_is_fitted(self)
        X = self._check_features(X)
        if execute_in_fhe is False:
            return self.program_(X)
        if not hasattr(self, "circuit_"):
            raise NotCompiledError(
                f"This {type(self).__name__} instance is not compiled yet. Call compile() "
                f"before predicting with execute_in_fhe={execute_in_fhe!r}."
            )
        codes = self.program_.quantize(X)
        if execute_in_fhe == "simulate":
            accumulators = self.circuit_.simulate(codes, self.verbose)
        else:
            accumulators = self.circuit_.execute(codes, self.verbose, n_jobs)
        return self.program_.dequantize(accumulators)

    def float_twin(self):
        """Make a float network with this one's topology, to see what quantization costs.

        Returns
        -------
        Pipeline or TransformedTargetRegressor
            Standardization and scikit-learn's MLP with the same hidden layers, activation
            function and random state, to be fitted on the same data.

        Raises
        ------
        ValueError
            If scikit-learn's MLP lacks the activation function.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.model_selection import cross_val_score
        >>> from cipherlearn import NeuralNetClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> twin = NeuralNetClassifier(random_state=0).float_twin()
        >>> bool(cross_val_score(twin, X, y).mean() > 0.9)
        True
        """
        return float_twin(self)

    def _state_html(self) -> str:
        return state_panel(self)

    def __getstate__(self):
        # skops. For pickle and copy there is ``__reduce_ex__``.
        return plain_state(self)

    def __setstate__(self, state):
        if is_skorch_state(state):
            super().__setstate__(state)
        else:
            restore(self, state)
