"""Net that trains a sparse quantized network, and lowers it to its integer program."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import skorch
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch.utils.data import DataLoader

from cipherlearn.estimators._modules import check_module, is_own, make_module
from cipherlearn.estimators._pruning import gentle_steps, with_fewer_neurons
from cipherlearn.estimators._skorch import SkorchNet, forget_best_scores
from cipherlearn.lowering._lower import lower
from cipherlearn.nn._network import SparseQuantNeuralNetImpl
from cipherlearn.training._callbacks import check_budget
from cipherlearn.training._components import choose_components
from cipherlearn.training._reference import Reference
from cipherlearn.training._schedule import (
    Phase,
    Schedule,
    choose_batch_size,
    choose_epochs,
    choose_neurons,
)
from cipherlearn.training._threads import one_thread, threads_for

__all__ = ["QuantizedNet"]

_SCORES = ("reference_score_", "training_score_")


class QuantizedNet(SkorchNet):
    """Net that trains in two phases: a float network first, then the quantized one."""

    # Schedule of the training that is under way.
    _reference: Reference | None = None
    _schedule: Schedule | None = None

    def __init__(
        self,
        module=SparseQuantNeuralNetImpl,
        *,
        module__n_layers=2,
        module__n_hidden_neurons="auto",
        module__n_w_bits=3,
        module__n_a_bits=2,
        module__n_accum_bits=8,
        module__n_hidden_accum_bits=4,
        lr=0.015,
        max_epochs=None,
        batch_size=None,
        random_state=None,
        verbose=0,
        module__rounding_bits=None,
        module__n_output_accum_bits=6,
        module__n_hidden_neurons_multiplier=2.3,
        module__budget="omega",
        module__n_input_bits=1,
        module__n_components="auto",
        module__n_codes_per_feature="auto",
        module__threshold_placement="mixed",
        module__activation_function=torch.nn.ReLU,
        module__pruning=True,
        module__wide_path=True,
        criterion=None,
        optimizer=torch.optim.Adam,
        iterator_train=DataLoader,
        iterator_train__shuffle=True,
        iterator_valid=DataLoader,
        train_split=None,
        callbacks=None,
        callbacks__quantization__warmup=0.4,
        callbacks__quantization__percentile=95.0,
        callbacks__quantization__distillation=0.9,
        callbacks__quantization__augment=True,
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
        self.module__n_input_bits = module__n_input_bits
        self.module__n_components = module__n_components
        self.module__n_codes_per_feature = module__n_codes_per_feature
        self.module__threshold_placement = module__threshold_placement
        self.module__activation_function = module__activation_function
        self.module__pruning = module__pruning
        self.module__wide_path = module__wide_path
        self.criterion = criterion
        self.optimizer = optimizer
        self.iterator_train = iterator_train
        self.iterator_train__shuffle = iterator_train__shuffle
        self.iterator_valid = iterator_valid
        self.train_split = train_split
        self.callbacks = callbacks
        self.callbacks__quantization__warmup = callbacks__quantization__warmup
        self.callbacks__quantization__percentile = callbacks__quantization__percentile
        self.callbacks__quantization__distillation = callbacks__quantization__distillation
        self.callbacks__quantization__augment = callbacks__quantization__augment
        self.warm_start = warm_start
        self.device = device
        self.warn_on_loss = warn_on_loss
        vars(self).update(kwargs)

    def initialize_module(self):
        """Create the module for the number of features and outputs seen in ``fit``."""
        if not hasattr(self, "n_features_in_"):
            raise skorch.exceptions.NotInitializedError(
                f"The shape of a {type(self).__name__}'s network follows from the training "
                "data. Call fit or partial_fit instead of initialize."
            )
        kwargs = self.get_params_for("module")
        # Fitted on none yet if only initialized, to load parameters.
        n_rows = getattr(self, "n_training_rows_", 0)
        if self.module__n_components == "auto":
            kwargs["n_components"] = getattr(self, "n_components_", 0)
        kwargs["n_hidden_neurons"] = choose_neurons(self.module__n_hidden_neurons, n_rows)
        own = {name: kwargs.pop(name) for name in self._module_parameters() if name in kwargs}
        own |= {"input_dim": self.n_features_in_, "n_outputs": self._n_outputs()}
        self.module_ = make_module(self.module, own, kwargs)
        return self

    @property
    def _is_own(self) -> bool:
        """Whether the module is ours, which trains in two phases."""
        return isinstance(self.module_, SparseQuantNeuralNetImpl)

    def train_step_single(self, batch, **fit_params):
        """Compute the loss of a batch and its gradients, with noisy copies of its rows."""
        if self._schedule is not None:
            batch = self._schedule.augmented(self, batch)
        return super().train_step_single(batch, **fit_params)

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Average the losses of a batch, whose targets a teacher may have softened."""
        if training and self._schedule is not None:
            y_true = self._schedule.soften(self, X, y_true)
        return super().get_loss(y_pred, y_true, X=X, training=training)

    def fit_loop(self, X, y=None, epochs=None, **fit_params):
        """Train the float network, then fine-tune the quantized one.

        Early stopping, or an interrupt from the keyboard, ends the phase it occurs in. A module
        that is not ours is trained as skorch does.
        """
        if not self._is_own:
            epochs = choose_epochs(
                self.max_epochs if epochs is None else epochs, self.batch_size, len(y)
            )
            self.phase_ = Phase(False, len(self.history), epochs, "Training")
            return super().fit_loop(X, y, epochs=epochs, **fit_params)
        if self._schedule is None:
            # skorch's own methods come here, too.
            self._schedule = self._new_schedule()
            try:
                return self.fit_loop(X, y, epochs, **fit_params)
            finally:
                del self._schedule
        if epochs is None:
            epochs = choose_epochs(self.max_epochs, self.batch_size, len(y))
        for phase in self._schedule.phases(self, epochs):
            self.phase_ = phase
            with contextlib.suppress(KeyboardInterrupt):
                super().fit_loop(X, y, epochs=phase.n_epochs, **fit_params)
            if phase.is_warmup:
                # Callbacks judge the quantized network by its own scores, not the float one's.
                forget_best_scores(self)
        return self

    def _new_schedule(self, **teacher: Any) -> Schedule:
        return Schedule(**self.get_params_for("callbacks__quantization"), **teacher)

    def _train(self, X: Any, y: NDArray, sample_weight: NDArray, cold: bool, teacher=None):
        """Run skorch on validated data, then lower the result."""
        if cold:
            self._forget_result(*_SCORES, "removed_neurons_")
            self.random_state_ = check_random_state(self.random_state)
        device = training_device(self.device)
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(self.random_state_.randint(2**31 - 1))
            if cold:
                self.n_training_rows_ = len(y)
                if self.module__n_components == "auto":
                    encodes = is_own(self.module)
                    self.n_components_ = choose_components(X, y, sample_weight) if encodes else 0
                self.initialize()
                if not self._is_own:
                    check_module(self.module_, self.n_features_in_)
            if not self._is_own:
                return self._train_plainly(X, y, sample_weight)
            self.n_components_ = len(self.module_.components.weights)
            data = {"X": X, "sample_weight": sample_weight} if np.ptp(sample_weight) > 0 else X
            n_rows = min(choose_batch_size(self.batch_size, len(y)), len(y))
            n_weights = max(linear.weight.numel() for linear in self.module_.linears)
            if teacher is not None:
                teacher = teacher.to(device)
            # A new network learns from one that is converted, an old one what it was.
            schedule = self._new_schedule(**{"large_teacher" if cold else "teacher": teacher})
            reference = Reference(self, X, y, sample_weight, teacher)
            self._reference, self._schedule = reference, schedule
            try:
                with threads_for(n_rows, n_weights):
                    if cold:
                        schedule.find_teacher(self, X, y, sample_weight)
                    skorch.NeuralNet.partial_fit(self, data, y)
            finally:
                # They hold rows and a second network, which do not belong into files.
                del self._reference, self._schedule
        check_budget(self.module_)
        self._keep_result()
        reference.compare(self.module_)
        return self

    def _train_plainly(self, X: Any, y: NDArray, sample_weight: NDArray):
        """Train a module that is not ours, on float32 rows, and lower it."""
        rows = X.astype(np.float32)
        weigh = np.ptp(sample_weight) > 0
        data = {"X": rows, "sample_weight": sample_weight} if weigh else rows
        with one_thread():
            skorch.NeuralNet.partial_fit(self, data, y)
        self._keep_result(X)
        return self

    def on_epoch_begin(self, net, dataset_train=None, **kwargs):
        """Score the float network before it is quantized, and follow the schedule."""
        super().on_epoch_begin(net, dataset_train=dataset_train, **kwargs)
        if self._schedule is None:
            return
        is_ready = self.module_.encoders[0].fitted and not self.module_.quantized
        if self._reference is not None and is_ready and not self.phase_.is_warmup:
            self._reference.consider(self.module_)
        self._schedule.begin_epoch(self, dataset_train)

    def on_epoch_end(self, net, **kwargs):
        """Score the float network early in the warm-up."""
        super().on_epoch_end(net, **kwargs)
        if self._reference is not None and self._reference.is_due():
            self._reference.consider(self.module_)

    def _forget_result(self, *more: str) -> None:
        """Drop what was made of an earlier network, so that nothing predicts with it."""
        for name in ("program_", "circuit_", *more):
            self.__dict__.pop(name, None)

    def _keep_result(self, X: Any = None) -> None:
        """Lower the present network. A circuit of an earlier one is dropped."""
        self._forget_result()
        X = np.zeros((0, self.n_features_in_)) if X is None else X
        self.program_ = lower(self.module_, X)

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
        check_is_fitted(self)
        smaller = with_fewer_neurons(self, self._check_features(X), n_prune_neurons_percentage)
        with gentle_steps(smaller.optimizer_):
            return smaller._fit(X, y, sample_weight, cold=False, teacher=self.module_)

    def load_params(self, *args, **kwargs):
        """Load skorch's files into the network, and lower it if it is quantized."""
        super().load_params(*args, **kwargs)
        self._forget_result(*_SCORES)
        if not self._is_own or self.module_.quantized:
            self._keep_result()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "program_")


def training_device(name: Any) -> torch.device:
    """Return the device of this name, or raise ValueError where no network can be trained."""
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    # Others lack the float64 of the thresholds.
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(
            f'device must be "cpu" or a CUDA device such as "cuda" or "cuda:1". Got {name!r}.'
        )
    return device
