"""What a classifier and a regressor share: a skorch net that validates and predicts encrypted."""

# What it imports is in no environment of the other engine.
# engine: concrete-python

from __future__ import annotations

import contextlib
import copy
import copyreg
import inspect
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import skorch
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from skorch.callbacks import EarlyStopping, EpochScoring, PassthroughScoring
from torch.utils.data import DataLoader

from cipherlearn._checks import check_execute_in_fhe, check_int
from cipherlearn._exceptions import CipherlearnError
from cipherlearn._features import as_csr, dense_rows, is_sparse, refusing_overflow
from cipherlearn._html import ShowsState
from cipherlearn._progress import say
from cipherlearn._samples import sample_rows
from cipherlearn.circuit._circuit import Circuit
from cipherlearn.circuit._cost import CostEstimate, estimate_cost
from cipherlearn.engines._options import CompileOptions
from cipherlearn.estimators._names import ATTRIBUTES, COMPILE_ARGUMENTS, check_names, refusing
from cipherlearn.estimators._persistence import plain_state, restore
from cipherlearn.estimators._twin import float_twin
from cipherlearn.inspection._report import Report, make_report
from cipherlearn.inspection._state_panel import state_panel
from cipherlearn.lowering._lower import lower
from cipherlearn.nn._network import SparseQuantNeuralNetImpl
from cipherlearn.nn._neurons import choose_neurons, neuron_importance, without_neurons
from cipherlearn.training._batches import RowDataset, TensorBatches, holds_arrays
from cipherlearn.training._callbacks import (
    CosineDecay,
    EpochLog,
    Phase,
    PruningCallback,
    QuantizationCallback,
    TrainingProgress,
    WeightDecay,
)
from cipherlearn.training._reference import Reference, describe_scores
from cipherlearn.training._threads import one_thread, threads_for

if TYPE_CHECKING:
    from cipherlearn.inspection._card import ModelCard

__all__ = ["EncryptedPredictionNet", "NotCompiledError"]

# Optimizer steps that max_epochs=None aims at, and the bounds on the epochs.
_STEPS, _MIN_EPOCHS, _MAX_EPOCHS = 4000, 30, 500

# Rows on which prune measures what a neuron is worth, and its factor on the learning rate.
_IMPORTANCE_ROWS, _GENTLE = 2000, 0.3

# torch has a fused Adam for the CPU since 2.4.
_FUSED_ADAM = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 4)

# What a state of skorch's holds and a plain one does not.
_SKORCH_STATE = "__cuda_dependent_attributes__"


class NotCompiledError(CipherlearnError, NotFittedError):
    """Encrypted prediction was asked of an estimator before ``compile()``."""


class EncryptedPredictionNet(ShowsState, skorch.NeuralNet):
    """What both estimators add to a skorch net."""

    _default_criterion: type[torch.nn.Module]

    # skorch collects these while it initializes; here they are known beforehand, which keeps
    # ``__init__`` free of anything but parameters. There is no ``compile`` prefix, since that
    # name is a method here and not skorch's flag for torch.compile.
    prefixes_ = [
        "module",
        "criterion",
        "optimizer",
        "iterator_train",
        "iterator_valid",
        "callbacks",
        "dataset",
    ]
    _modules = ["module"]
    _criteria = ["criterion"]
    _optimizers = ["optimizer"]
    cuda_dependent_attributes_ = ["module_", "criterion_", "optimizer_"]
    history_ = None
    initialized_ = False
    virtual_params_: dict[str, Any] = {}

    # skorch arguments that have one sensible value here.
    dataset = RowDataset
    use_caching = "auto"
    torch_load_kwargs = None
    predict_nonlinearity = "auto"

    __repr__ = BaseEstimator.__repr__

    def _state_html(self) -> str:
        return state_panel(self)

    def __init__(
        self,
        module=SparseQuantNeuralNetImpl,
        *,
        module__n_layers=2,
        module__n_hidden_neurons=32,
        module__n_w_bits=3,
        module__n_a_bits=2,
        module__n_accum_bits=8,
        module__n_hidden_accum_bits=5,
        lr=0.01,
        max_epochs=None,
        batch_size=32,
        random_state=None,
        verbose=0,
        module__rounding_bits=None,
        module__n_output_accum_bits=None,
        module__n_hidden_neurons_multiplier=2.3,
        module__budget="omega",
        module__n_codes_per_feature="auto",
        module__threshold_placement="mixed",
        module__activation_function=torch.nn.ReLU,
        module__pruning=True,
        criterion=None,
        optimizer=torch.optim.Adam,
        iterator_train=DataLoader,
        iterator_train__shuffle=True,
        iterator_valid=DataLoader,
        train_split=None,
        callbacks=None,
        warm_start=False,
        device="cpu",
        warn_on_loss=True,
        **kwargs,
    ):
        self.module = module
        self.module__n_layers = module__n_layers
        self.module__n_hidden_neurons = module__n_hidden_neurons
        self.module__n_w_bits = module__n_w_bits
        self.module__n_a_bits = module__n_a_bits
        self.module__n_accum_bits = module__n_accum_bits
        self.module__n_hidden_accum_bits = module__n_hidden_accum_bits
        self.lr = lr
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose
        self.module__rounding_bits = module__rounding_bits
        self.module__n_output_accum_bits = module__n_output_accum_bits
        self.module__n_hidden_neurons_multiplier = module__n_hidden_neurons_multiplier
        self.module__budget = module__budget
        self.module__n_codes_per_feature = module__n_codes_per_feature
        self.module__threshold_placement = module__threshold_placement
        self.module__activation_function = module__activation_function
        self.module__pruning = module__pruning
        self.criterion = criterion
        self.optimizer = optimizer
        self.iterator_train = iterator_train
        self.iterator_train__shuffle = iterator_train__shuffle
        self.iterator_valid = iterator_valid
        self.train_split = train_split
        self.callbacks = callbacks
        self.warm_start = warm_start
        self.device = device
        self.warn_on_loss = warn_on_loss
        vars(self).update(kwargs)

    @property
    def _default_callbacks(self):
        return [
            ("quantization", QuantizationCallback()),
            ("pruning", PruningCallback()),
            ("weight_decay", WeightDecay()),
            ("lr_decay", CosineDecay()),
            *((name, c) for name, c in super()._default_callbacks if name != "print_log"),
            ("progress_bar", TrainingProgress()),
            ("print_log", EpochLog()),
        ]

    # ------------------------------------------------------------------ parameters

    def _get_param_names(self) -> list[str]:
        # skorch counts every attribute; only constructor arguments are parameters.
        return sorted({*self._signature_parameters(), *self._params_to_validate})

    @classmethod
    def _signature_parameters(cls) -> list[str]:
        return BaseEstimator._get_param_names.__func__(cls)

    @property
    def _params_to_validate(self) -> set[str]:
        """Arguments given as ``**kwargs``, whose names skorch checks in ``initialize``."""
        given = {k for k in vars(self) if not (k.startswith("_") or k.endswith("_"))}
        return given.difference(self._signature_parameters())

    def get_params(self, deep=True):
        """Get the parameters by name.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include those of the callbacks.

        Returns
        -------
        dict
        """
        # skorch reports a callback's defaults over what was set for it.
        params = super().get_params(deep=deep)
        return params | {name: getattr(self, name) for name in self._get_param_names()}

    def set_params(self, **params):
        """Set parameters, which take effect at the next ``fit``.

        Parameters
        ----------
        **params
            Parameters by name, with skorch's prefixes.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there is no such parameter. The nearest names are in the message.
        """
        # skorch would re-create a trained module as soon as one of its parameters is set. A part
        # sorts before its arguments. A wrong name that the constructor was given is for fit.
        for name in sorted(params):
            if name not in self._get_param_names():
                check_names(self, [name])
            setattr(self, name, params[name])
        # The learning rate and its kin also change a live optimizer, for partial_fit.
        self._apply_virtual_params({k: v for k, v in params.items() if self._is_virtual_param(k)})
        return self

    def initialize(self):
        """Create the module, the optimizer and the other parts, as ``fit`` does."""
        # Before the parts refuse arguments in words of their own. Some may add prefixes: skorch
        # checks those afterwards.
        check_names(self, (name for name in self._params_to_validate if self._is_settled(name)))
        return super().initialize()

    def _is_settled(self, name: str) -> bool:
        prefix, delimiter, _ = name.partition("__")
        return not delimiter or prefix in self.prefixes_

    def _validate_params(self):
        check_names(self, self._params_to_validate)
        super()._validate_params()

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            if name in ATTRIBUTES:
                raise AttributeError(
                    f"{type(self).__name__} has no attribute {name!r} (Concrete-ML has it). "
                    f"Use {ATTRIBUTES[name]}."
                )
            # Python's own message, or a property's.
            return super().__getattribute__(name)

    def torch_compile(self, module, name):
        """Leave modules as they are: ``compile`` here means compilation to a circuit."""
        return module

    # ------------------------------------------------------------------ training

    def initialize_module(self):
        """Create the module for the number of features and outputs seen in ``fit``."""
        if not hasattr(self, "n_features_in_"):
            raise skorch.exceptions.NotInitializedError(
                f"The shape of a {type(self).__name__}'s network follows from the training "
                "data. Call fit or partial_fit instead of initialize."
            )
        kwargs = self.get_params_for("module")
        self.module_ = self.module(
            input_dim=self.n_features_in_, n_outputs=self._n_outputs(), **kwargs
        )
        return self

    def initialize_criterion(self):
        """Create the loss, per sample so that samples can be weighted."""
        criterion = self._default_criterion if self.criterion is None else self.criterion
        kwargs = self._criterion_arguments()
        if "reduction" in inspect.signature(criterion).parameters:
            kwargs = {"reduction": "none", **kwargs}
        self.criterion_ = criterion(**kwargs)
        return self

    def _criterion_arguments(self) -> dict[str, Any]:
        return self.get_params_for("criterion")

    def get_params_for_optimizer(self, prefix, named_parameters):
        """Choose torch's fused kernel for Adam, where there is one and no other is asked for.

        On a small network an unfused step takes as long as the backward pass.
        """
        args, kwargs = super().get_params_for_optimizer(prefix, named_parameters)
        chosen = kwargs.keys() & {"fused", "foreach", "capturable", "differentiable"}
        if _FUSED_ADAM and getattr(self, prefix) in (torch.optim.Adam, torch.optim.AdamW):
            kwargs = kwargs if chosen else {**kwargs, "fused": True}
        return args, kwargs

    def get_iterator(self, dataset, training=False):
        """Index whole batches of tensors, where the loader's options allow it."""
        loader = self.iterator_train if training else self.iterator_valid
        options = self.get_params_for("iterator_train" if training else "iterator_valid")
        is_plain = options.keys() <= {"batch_size", "shuffle", "drop_last"}
        if loader is not DataLoader or not is_plain or not holds_arrays(dataset):
            return super().get_iterator(dataset, training=training)
        return TensorBatches(dataset, **{"batch_size": self.batch_size, **options})

    def check_data(self, X, y=None) -> None:
        """Do nothing: ``fit`` has validated its arguments."""

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Average the losses of a batch, weighted if its samples are."""
        if training and not self.phase_.is_warmup:
            y_true = self._quantization_callback().soften(self, X, y_true)
        losses = super().get_loss(y_pred, y_true, X=X, training=training)
        if losses.ndim > 1:
            losses = losses.flatten(start_dim=1).mean(dim=1)
        if not isinstance(X, dict):
            return losses.mean()
        if losses.ndim == 0:
            raise ValueError(
                "Weighted rows need a loss per row (weights of classes make them, and equal rows, "
                f"which are merged). {type(self.criterion_).__name__} gives one number per batch. "
                "Use a criterion that takes reduction='none', or distinct rows without weights."
            )
        return (losses * X["sample_weight"].to(losses)).mean()

    def fit_loop(self, X, y=None, epochs=None, **fit_params):
        """Train the float network, then fine-tune the quantized one.

        Early stopping, or an interrupt from the keyboard, ends the phase it occurs in.
        """
        n_epochs = self._choose_epochs(len(y)) if epochs is None else epochs
        n_warmup = 0
        if not self.module_.quantized:
            n_warmup = self._quantization_callback().warmup_epochs(n_epochs)
            self.phase_ = Phase(True, len(self.history), n_warmup)
            with contextlib.suppress(KeyboardInterrupt):
                super().fit_loop(X, y, epochs=n_warmup, **fit_params)
            self._forget_best_scores()
        self.phase_ = Phase(False, len(self.history), n_epochs - n_warmup)
        return super().fit_loop(X, y, epochs=n_epochs - n_warmup, **fit_params)

    def _quantization_callback(self) -> QuantizationCallback:
        callback = dict(self.callbacks_).get("quantization")
        if not isinstance(callback, QuantizationCallback):
            raise ValueError(
                "The callback 'quantization' must be a QuantizationCallback, since only a "
                f"quantized network can be encrypted. Got {callback!r}. Configure it with "
                "callbacks__quantization__warmup and the like instead of removing it."
            )
        return callback

    def _forget_best_scores(self) -> None:
        """Let callbacks judge the quantized network by its own scores, not the float one's."""
        for _, callback in self.callbacks_:
            if isinstance(callback, EarlyStopping):
                callback.on_train_begin(self)
            elif isinstance(callback, EpochScoring | PassthroughScoring):
                callback.initialize()

    def _choose_epochs(self, n_samples: int) -> int:
        if self.max_epochs is not None:
            check_int("max_epochs", self.max_epochs, 1)
            return self.max_epochs
        n_batches = math.ceil(n_samples / self.batch_size) if self.batch_size > 0 else 1
        return min(_MAX_EPOCHS, max(_MIN_EPOCHS, math.ceil(_STEPS / n_batches)))

    def _train(self, X: Any, y: NDArray, sample_weight: NDArray, cold: bool):
        """Run skorch on validated data, then lower the result."""
        if cold:
            self._forget_scores()
            self.random_state_ = check_random_state(self.random_state)
        device = self._training_device()
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(self.random_state_.randint(2**31 - 1))
            if cold:
                self.initialize()
            weighted = np.ptp(sample_weight) > 0
            data = {"X": X, "sample_weight": sample_weight} if weighted else X
            n_rows = len(y) if self.batch_size == -1 else min(self.batch_size, len(y))
            n_weights = max(linear.weight.numel() for linear in self.module_.linears)
            reference = Reference(self, X, y, sample_weight)
            teacher = getattr(self._quantization_callback(), "next_teacher_", None)
            if teacher is not None:
                reference.consider(teacher)
                reference.prunes = True
            self._reference = reference
            try:
                with threads_for(n_rows, n_weights):
                    skorch.NeuralNet.partial_fit(self, data, y)
            finally:
                # It holds rows, which do not belong into files.
                del self._reference
        self._check_budget()
        self._keep_result()
        reference.compare(self.module_)
        return self

    def on_epoch_begin(self, net, **kwargs):
        """Score the float network before the first epoch that quantizes it."""
        super().on_epoch_begin(net, **kwargs)
        if not (self.phase_.is_warmup or self.module_.quantized) and self.module_.encoder.fitted:
            self._reference.consider(self.module_)

    def on_epoch_end(self, net, **kwargs):
        """Score the float network early in the warm-up."""
        super().on_epoch_end(net, **kwargs)
        if self._reference.is_due():
            self._reference.consider(self.module_)

    def _training_device(self) -> torch.device:
        try:
            device = torch.device(self.device)
        except (RuntimeError, TypeError):
            device = None
        # Others lack the float64 of the thresholds.
        if device is None or device.type not in ("cpu", "cuda"):
            raise ValueError(
                'device must be "cpu" or a CUDA device such as "cuda" or "cuda:1". '
                f"Got {self.device!r}."
            )
        return device

    def _forget_result(self) -> None:
        """Drop what was made of an earlier network, so that nothing predicts with it."""
        for name in ("program_", "circuit_"):
            if hasattr(self, name):
                delattr(self, name)

    def _forget_scores(self) -> None:
        for name in ("reference_score_", "training_score_"):
            self.__dict__.pop(name, None)

    def _keep_result(self) -> None:
        """Lower the present network. A circuit of an earlier one is dropped."""
        self._forget_result()
        self.program_ = lower(self.module_)

    def prune(self, X, y, n_prune_neurons_percentage="auto", sample_weight=None):
        """Remove hidden neurons, and fine-tune what remains.

        Each hidden neuron costs one bootstrap per encrypted row, so a network with half of
        them predicts twice as fast. Those are removed that change the outputs least when they
        always give their mean code. The rest is fine-tuned for ``max_epochs``, with this
        estimator as its teacher. Can be repeated.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Features to fine-tune on.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels or targets.
        n_prune_neurons_percentage : float or "auto", default="auto"
            Part of each hidden layer to remove, at least 0 and below 1, such as 0.25, besides
            neurons that change nothing. One always stays. "auto" removes those that together
            carry at most 1 % of the outputs' variance.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row.

        Returns
        -------
        estimator
            A new, fine-tuned estimator. This one is not changed.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        ValueError
            If the data or the percentage is invalid.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from cipherlearn import NeuralNetClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> clf = NeuralNetClassifier(max_epochs=20, random_state=0).fit(X, y)
        >>> half = clf.prune(X, y, n_prune_neurons_percentage=0.5)
        >>> half.program_.n_bootstraps <= clf.program_.n_bootstraps / 2 + 1
        True
        """
        smaller = self._pruned(X, n_prune_neurons_percentage)
        with smaller._gentle_steps():
            return smaller._fit(X, y, sample_weight, cold=False)

    def _pruned(self, X: Any, n_prune_neurons_percentage: float | str):
        """Copy the estimator without some of its hidden neurons, not yet fine-tuned."""
        check_is_fitted(self)
        X = self._check_features(X)
        sample = dense_rows(X, sample_rows(X.shape[0], _IMPORTANCE_ROWS))
        rows = torch.as_tensor(sample, device=self.device)
        smaller = copy.deepcopy(self)
        smaller._forget_result()
        module = self.module_.eval()
        with one_thread():
            importance = neuron_importance(module, rows)
        kept = choose_neurons(importance, n_prune_neurons_percentage)
        if kept:
            smaller.set_params(module__n_hidden_neurons=[len(indices) for indices in kept])
        smaller.module_ = without_neurons(module, kept, rows)
        smaller.initialize_optimizer()
        smaller._quantization_callback().learn_from(module)
        return smaller

    @contextlib.contextmanager
    def _gentle_steps(self):
        """Train from weights that are good already, without losing them in the first steps."""
        groups = self.optimizer_.param_groups
        for group in groups:
            group["lr"] *= _GENTLE
        yield
        for group in groups:
            group["lr"] /= _GENTLE

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

    def load_params(self, *args, **kwargs):
        """Load skorch's files into the network, and lower it if it is quantized."""
        super().load_params(*args, **kwargs)
        self._forget_result()
        self._forget_scores()
        if self.module_.quantized:
            self._keep_result()

    def _check_budget(self) -> None:
        module = self.module_
        if not module.pruning:
            return
        for i, (linear, budget) in enumerate(zip(module.linears, module.budgets, strict=True)):
            counts = linear.effective_weight().count_nonzero(dim=1)
            self._check_limit(i, "non-zero weights", counts, budget)
            if linear.max_width is not None:
                self._check_limit(i, "as the width of its sum", linear.widths(), linear.max_width)

    @staticmethod
    def _check_limit(i_layer: int, what: str, values: torch.Tensor, limit: int) -> None:
        if (values > limit).any():
            raise RuntimeError(
                f"Neuron {int(values.argmax())} of layer {i_layer} has {int(values.max())} {what}, "
                f"more than its budget of {limit}. Some callback undid the pruning: remove it, or "
                "set module__pruning=False."
            )

    def _check_features(self, X: Any) -> Any:
        """Return features as floats, dense or in CSR, or raise ValueError."""
        return self._validated(X, reset=False)

    def _validated(self, X: Any, *y: Any, **options: Any) -> Any:
        # Entries that are stored twice are one value, which is what has to be finite.
        X = as_csr(X) if is_sparse(X) else X
        with refusing_overflow():
            return validate_data(self, X, *y, dtype=np.float64, accept_sparse="csr", **options)

    def _check_weights(self, X: Any, sample_weight: ArrayLike | None) -> NDArray:
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        if not weights.any():
            raise ValueError("At least one sample weight must be positive. Got only zeros.")
        return weights

    # ------------------------------------------------------------------ prediction

    @refusing(COMPILE_ARGUMENTS)
    def compile(
        self,
        p_error: float | None = None,
        global_p_error: float | None = None,
        batch_size: int = 1,
        rounding: str = "exact",
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
        verbose : int or None, default=None
            Whether to show the time of each stage. None takes the estimator's own.

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
            n_accum_bits=self.module_.accum_bits,
            p_error=p_error,
            global_p_error=global_p_error,
            batch_size=batch_size,
            rounding=rounding,
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
        verbose: int | None = None,
    ) -> CostEstimate:
        """Estimate the cost of encrypted prediction on this machine, before compiling.

        The first call for networks of new precisions takes some seconds: circuits of a few
        neurons are compiled and timed.

        Parameters
        ----------
        p_error, global_p_error, batch_size, rounding
            As for :meth:`compile`.
        verbose : int or None, default=None
            Whether to show progress while circuits are timed. None takes the estimator's own.

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
        options = CompileOptions(p_error, global_p_error, batch_size, rounding)
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
        return make_report(
            self.program_,
            self.module_.n_neurons,
            self.module_.budgets,
            self.module_.accum_bits,
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
            told. None leaves the evaluation out.
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

    def _is_training_dataset(self, X, execute_in_fhe: bool | str) -> bool:
        """Whether ``X`` is what skorch's scoring callbacks pass: the dataset, for the module."""
        if not skorch.utils.is_dataset(X):
            return False
        if execute_in_fhe is not False:
            raise ValueError(
                "Encrypted prediction needs an array of features. Got a dataset. Pass its X."
            )
        return True

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

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "program_")

    # ------------------------------------------------------------------ persistence

    def __reduce_ex__(self, protocol):
        # pickle and copy: skorch's state, with the optimizer's moments.
        return copyreg.__newobj__, (type(self),), super().__getstate__()

    def __getstate__(self):
        # skops.
        return plain_state(self)

    def __setstate__(self, state):
        if _SKORCH_STATE in state:
            super().__setstate__(state)
        else:
            restore(self, state)
