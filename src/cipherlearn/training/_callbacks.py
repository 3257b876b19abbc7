"""Callbacks of skorch that follow the phases of training."""

from __future__ import annotations

import math

import torch
from skorch.callbacks import Callback, PrintLog

from cipherlearn._progress import progress_bar
from cipherlearn.nn._filters import FilterPruner
from cipherlearn.nn._network import SparseQuantNeuralNetImpl

__all__ = [
    "CosineDecay",
    "EpochLog",
    "PruningCallback",
    "TrainingProgress",
    "WeightDecay",
    "check_budget",
    "prune",
]


class PruningCallback(Callback):
    """Grow each neuron's sparsity along a cubic schedule, and hold it to its budget.

    The number of weights kept falls from the fan-in :math:`k_0` to the budget
    :math:`k` as :math:`k + (k_0 - k)(1 - t)^3`. The weights kept are those of the largest
    magnitude in each neuron. In layers whose sums have a limit of their own, the span falls to
    it in the same way. Once the weights are integers, each sum is kept within
    its limit after every step.

    Parameters
    ----------
    end : float, default=0.8
        Fraction of the warm-up after which the budget is reached. In a module of your own, which
        has no warm-up, of the training.
    n_accum_bits : int or None, default=None
        Bits of an accumulator in a module of your own, whose neurons and filters then keep at most
        ``floor(multiplier * Ω)`` weights: a filter sums channels × kernel height × kernel width of
        them. ``None`` prunes none. Our own network has ``module__n_accum_bits``.
    multiplier : float, default=1.0
        Factor on Ω in a module of your own.

    References
    ----------
    Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model
    compression", 2017.
    """

    def __init__(
        self, end: float = 0.8, n_accum_bits: int | None = None, multiplier: float = 1.0
    ) -> None:
        self.end = end
        self.n_accum_bits = n_accum_bits
        self.multiplier = multiplier

    def on_train_begin(self, net, **kwargs) -> None:
        self.pruner_ = None
        if not isinstance(net.module_, SparseQuantNeuralNetImpl):
            removed = getattr(net, "removed_neurons_", {})
            self.pruner_ = FilterPruner(net.module_, self.n_accum_bits, self.multiplier, removed)

    def on_epoch_begin(self, net, **kwargs) -> None:
        if self.pruner_ is not None:
            self.pruner_.begin_epoch(_progress(net.phase_, len(net.history), self.end))
        elif net.phase_.is_warmup:
            progress = net.phase_.progress(len(net.history))
            prune(net.module_, min(1.0, progress / self.end) if self.end > 0 else 1.0)

    def on_batch_end(self, net, training=False, **kwargs) -> None:
        if training and self.pruner_ is not None:
            self.pruner_.apply()
        elif training:
            for linear in net.module_.linears:
                linear.project()

    def on_train_end(self, net, **kwargs) -> None:
        if self.pruner_ is not None:
            self.pruner_.finish()

    def __getstate__(self) -> dict:
        # It holds the module.
        return {name: value for name, value in vars(self).items() if name != "pruner_"}


def _progress(phase, epoch: int, end: float) -> float:
    """Part of the way to the budget, which is reached before the last epoch at the latest."""
    is_last = epoch - phase.first_epoch >= phase.n_epochs
    return 1.0 if is_last or end <= 0 else min(1.0, phase.progress(epoch) / end)


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
            title, n_epochs = net.phase_.title, net.phase_.n_epochs
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
