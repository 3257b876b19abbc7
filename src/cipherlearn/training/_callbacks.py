"""Quantization-aware training as skorch callbacks.

Training has two phases. In the *warm-up* the network is float and its sparsity grows
to the budget. In the *fine-tuning* it is quantized and its mask is fixed. Quantizing and
pruning from the first step instead loses many points of accuracy.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from skorch.callbacks import Callback, PrintLog

from cipherlearn._checks import check_int
from cipherlearn._features import dense_rows, is_sparse
from cipherlearn._progress import progress_bar
from cipherlearn._samples import sample_rows
from cipherlearn.training._batches import arrays_of

__all__ = [
    "CosineDecay",
    "EpochLog",
    "Phase",
    "PruningCallback",
    "QuantizationCallback",
    "TrainingProgress",
    "WeightDecay",
    "check_budget",
    "choose_epochs",
    "prune",
]

# Optimizer steps that max_epochs=None aims at, and the bounds on the epochs.
_STEPS, _MIN_EPOCHS, _MAX_EPOCHS = 4000, 30, 500

# Ranges and scales are estimated on at most this many values per layer.
_CALIBRATION_VALUES = 1_000_000


@dataclass(frozen=True)
class Phase:
    """A run of consecutive epochs of one fit.

    Parameters
    ----------
    is_warmup : bool
        Whether the network is still float.
    first_epoch : int
        Number of epochs in the history when the phase begins.
    n_epochs : int
        Planned length.
    """

    is_warmup: bool
    first_epoch: int
    n_epochs: int

    def progress(self, epoch: int) -> float:
        """Part of the phase done, from 0 to 1, at the start of the history's ``epoch``-th."""
        done = epoch - 1 - self.first_epoch
        return min(1.0, max(0.0, done / max(1, self.n_epochs)))


def choose_epochs(max_epochs: int | None, batch_size: int, n_samples: int) -> int:
    """Return ``max_epochs``, or for None as many as make enough steps."""
    if max_epochs is not None:
        check_int("max_epochs", max_epochs, 1)
        return max_epochs
    n_batches = math.ceil(n_samples / batch_size) if batch_size > 0 else 1
    return min(_MAX_EPOCHS, max(_MIN_EPOCHS, math.ceil(_STEPS / n_batches)))


class PruningCallback(Callback):
    """Grow each neuron's sparsity along a cubic schedule, and hold it to its budget.

    The number of weights kept falls from the fan-in :math:`k_0` to the budget
    :math:`k` as :math:`k + (k_0 - k)(1 - t)^3`. The weights kept are those of the largest
    magnitude in each neuron. In layers whose sums have a limit of their own, the width that their
    inputs span falls to it in the same way. Once the weights are integers, each sum is kept within
    its limit after every step.

    Parameters
    ----------
    end : float, default=0.8
        Fraction of the warm-up after which the budget is reached.

    References
    ----------
    Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model
    compression", 2017.
    """

    def __init__(self, end: float = 0.8) -> None:
        self.end = end

    def on_epoch_begin(self, net, **kwargs) -> None:
        if net.phase_.is_warmup:
            progress = net.phase_.progress(len(net.history))
            prune(net.module_, min(1.0, progress / self.end) if self.end > 0 else 1.0)

    def on_batch_end(self, net, training=False, **kwargs) -> None:
        if training:
            for linear in net.module_.linears:
                linear.project()


def prune(module, progress: float) -> None:
    """Keep in each neuron as many weights as the cubic schedule allows at ``progress``."""
    if not module.pruning:
        return
    for linear, budget in zip(module.linears, module.budgets, strict=True):
        linear.keep_largest(budget, progress)


def check_budget(module) -> None:
    """Raise RuntimeError if a neuron has more weights, or a wider sum, than its budget."""
    if not module.pruning:
        return
    for i, (linear, budget) in enumerate(zip(module.linears, module.budgets, strict=True)):
        counts = linear.effective_weight().count_nonzero(dim=1)
        _check_limit(i, "non-zero weights", counts, budget)
        if linear.max_width is not None:
            _check_limit(i, "as the width of its sum", linear.widths(), linear.max_width)


def _check_limit(i_layer: int, what: str, values: torch.Tensor, limit: int) -> None:
    if (values > limit).any():
        raise RuntimeError(
            f"Neuron {int(values.argmax())} of layer {i_layer} has {int(values.max())} {what}, "
            f"more than its budget of {limit}. Some callback undid the pruning: remove it, or "
            "set module__pruning=False."
        )


class QuantizationCallback(Callback):
    """Learn how inputs are encoded, and quantize the network when the warm-up ends.

    Parameters
    ----------
    warmup : float, default=0.4
        Fraction of the epochs of a first ``fit`` that train the float network.
    percentile : float, default=95.0
        Codes span each neuron's activation between percentiles ``100 - percentile`` and
        ``percentile`` of the training data.
    distillation : float, default=0.9
        Share of the float network's outputs in the targets of the fine-tuning.

    References
    ----------
    Polino, Pascanu and Alistarh, "Model compression via distillation and quantization", 2018.
    """

    def __init__(
        self, warmup: float = 0.4, percentile: float = 95.0, distillation: float = 0.9
    ) -> None:
        self.warmup = warmup
        self.percentile = percentile
        self.distillation = distillation

    def learn_from(self, teacher: torch.nn.Module) -> None:
        """Distill from this network in the next training, which has no warm-up."""
        self.next_teacher_: torch.nn.Module | None = copy.deepcopy(teacher).eval()

    def on_train_begin(self, net, **kwargs) -> None:
        self.teacher_ = getattr(self, "next_teacher_", None)
        self.next_teacher_ = None
        for name, low, high in (("warmup", 0, 1), ("percentile", 50, 100), ("distillation", 0, 1)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(
                    f"callbacks__quantization__{name} must be between {low} and {high}. "
                    f"Got {value!r}."
                )

    def warmup_epochs(self, n_epochs: int) -> int:
        """Epochs of the float phase out of ``n_epochs``, leaving at least one to fine-tune."""
        return min(n_epochs - 1, math.ceil(self.warmup * n_epochs))

    def on_epoch_begin(self, net, dataset_train=None, **kwargs) -> None:
        module = net.module_
        # The history outlives ``phase_``, which is only the last. skorch's loggers know events.
        net.history.record("event_quantized", not net.phase_.is_warmup)
        if not module.encoder.fitted:
            module.fit_encoder(_features(net, dataset_train), net.verbose)
        if not net.phase_.is_warmup and not module.quantized:
            prune(module, progress=1.0)
            if self.distillation > 0:
                self.teacher_ = copy.deepcopy(module).eval()
            X = _features(net, dataset_train)
            widest = max(linear.in_features for linear in module.linears)
            rows = dense_rows(X, sample_rows(X.shape[0], _CALIBRATION_VALUES // widest))
            module.calibrate(torch.as_tensor(rows, device=net.device), self.percentile)
            # The weights are in other units now, so momenta no longer fit.
            net.optimizer_.state.clear()

    def on_train_end(self, net, **kwargs) -> None:
        self.teacher_ = None

    @torch.no_grad()
    def soften(self, net, X, y_true: torch.Tensor) -> torch.Tensor:
        """Mix the float network's outputs for a batch into its targets."""
        if self.teacher_ is None or self.distillation == 0:
            return y_true
        X = torch.as_tensor(X["X"] if isinstance(X, dict) else X, device=net.device)
        outputs = self.teacher_(X)
        if isinstance(net.criterion_, torch.nn.CrossEntropyLoss):
            outputs = outputs.softmax(dim=1)
            y_true = torch.nn.functional.one_hot(y_true, outputs.shape[1])
        elif outputs.shape != y_true.shape:
            return y_true
        return torch.lerp(y_true.to(outputs), outputs, self.distillation)


class WeightDecay(Callback):
    """Shrink the weights in every step of the warm-up, the more the fewer rows there are.

    Each step multiplies the weights, though not the biases, by ``1 - lr * rate``, with
    ``rate = min(largest, strength / n_samples)``. This keeps a float network of many input codes
    from learning the noise of small data, which the quantized one would then be taught.

    Parameters
    ----------
    strength : float, default=1000.0
        Rate for one row.
    largest : float, default=3.0
        Upper bound of the rate.

    References
    ----------
    Loshchilov and Hutter, "Decoupled weight decay regularization", 2019.
    """

    def __init__(self, strength: float = 1000.0, largest: float = 3.0) -> None:
        self.strength = strength
        self.largest = largest

    def on_train_begin(self, net, **kwargs) -> None:
        for name in ("strength", "largest"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(
                    f"callbacks__weight_decay__{name} must be a number of at least 0. "
                    f"Got {value!r}."
                )

    def on_epoch_begin(self, net, dataset_train=None, **kwargs) -> None:
        self.rate_ = min(self.largest, self.strength / len(dataset_train))

    @torch.no_grad()
    def on_batch_end(self, net, training=False, **kwargs) -> None:
        if training and net.phase_.is_warmup:
            lr = net.optimizer_.param_groups[0]["lr"]
            for linear in net.module_.linears:
                linear.weight.mul_(max(0.0, 1 - lr * self.rate_))


class CosineDecay(Callback):
    """Lower the learning rate to 0 along half a cosine, once per phase.

    Remove it with ``callbacks__lr_decay=None`` to use a schedule of your own.

    References
    ----------
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017.
    """

    def on_train_begin(self, net, **kwargs) -> None:
        self.base_lrs_ = [group["lr"] for group in net.optimizer_.param_groups]

    def on_epoch_begin(self, net, dataset_train=None, **kwargs) -> None:
        self._set(net, 0.5 * (1 + math.cos(math.pi * net.phase_.progress(len(net.history)))))

    def on_train_end(self, net, **kwargs) -> None:
        self._set(net, 1.0)

    def _set(self, net, factor: float) -> None:
        for group, base_lr in zip(net.optimizer_.param_groups, self.base_lrs_, strict=True):
            group["lr"] = base_lr * factor


class TrainingProgress(Callback):
    """Show a progress bar over the epochs of each phase, if the net is verbose."""

    def on_train_begin(self, net, **kwargs) -> None:
        self.phase_ = None
        self.bar_ = progress_bar(0, "", "", verbose=False)

    def on_epoch_begin(self, net, dataset_train=None, **kwargs) -> None:
        if self.phase_ is not net.phase_:
            self.bar_.close()
            self.phase_ = net.phase_
            title = "Float warm-up" if net.phase_.is_warmup else "Fine-tuning"
            n_epochs = net.phase_.n_epochs
            self.bar_ = progress_bar(n_epochs, title, "epoch", net.verbose, in_parts=True)
        self.done_, self.n_rows_ = self.bar_.n, len(dataset_train)

    def on_batch_end(self, net, training=False, **kwargs) -> None:
        if training and net.verbose:
            part = net.history[-1, "batches", -1, "train_batch_size"] / self.n_rows_
            # The last batch ends the epoch, and that is shown with its losses.
            if self.bar_.n + part < self.done_ + 1 - 1e-6:
                self.bar_.update(part)

    def on_epoch_end(self, net, **kwargs) -> None:
        losses = {
            name: f"{net.history[-1, name]:.4f}"
            for name in ("train_loss", "valid_loss")
            if name in net.history[-1]
        }
        self.bar_.set_postfix(losses, refresh=False)
        self.bar_.update(self.done_ + 1 - self.bar_.n)

    def on_train_end(self, net, **kwargs) -> None:
        self.bar_.close()

    def __getstate__(self) -> dict:
        # A bar does not pickle, and skorch's checkpoints are made while it is there.
        return {name: value for name, value in vars(self).items() if name != "bar_"}


class EpochLog(PrintLog):
    """Line of skorch for each epoch, shown with ``verbose=2`` or by a ``sink`` other than print."""

    def on_epoch_end(self, net, **kwargs) -> None:
        if net.verbose > 1 or self.sink is not print:
            super().on_epoch_end(net, **kwargs)


def _features(net, dataset) -> Any:
    """Return the features of a skorch dataset, as a tensor unless they are sparse."""
    X, _ = arrays_of(dataset)
    X = X["X"] if isinstance(X, dict) else X
    return X if is_sparse(X) else torch.as_tensor(X, device=net.device)
