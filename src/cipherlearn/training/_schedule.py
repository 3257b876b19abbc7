"""Schedule of quantization-aware training.

Training has two phases. In the *warm-up* the network is float and its sparsity grows
to the budget. In the *fine-tuning* it is quantized and its mask is fixed. Quantizing and
pruning from the first step instead loses many points of accuracy.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from cipherlearn._checks import check_int
from cipherlearn._features import dense_rows, is_sparse
from cipherlearn._samples import sample_rows
from cipherlearn.training._batches import arrays_of
from cipherlearn.training._callbacks import prune
from cipherlearn.training._teacher import swap_noise, train_teacher

__all__ = ["Phase", "Schedule", "choose_batch_size", "choose_epochs", "choose_neurons"]

# Optimizer steps that max_epochs=None aims at, and the bounds on the epochs.
_STEPS, _MIN_EPOCHS, _MAX_EPOCHS = 1000, 10, 500

# Rows of a batch for batch_size=None, and the batches of an epoch beyond which it grows.
_SMALLEST_BATCH, _LARGEST_BATCH, _BATCHES = 64, 512, 80

# Hidden neurons of "auto": one for so many rows, between these bounds.
_ROWS_OF_A_NEURON, _FEWEST_NEURONS, _MOST_NEURONS = 64, 24, 64

# Share of a larger teacher's outputs in the targets of training rows.
_LARGE_SHARE = 0.5

# Ranges and scales are estimated on at most this many values per layer.
_CALIBRATION_VALUES = 1_000_000


def choose_neurons(n_hidden_neurons: Any, n_samples: int) -> Any:
    """Return ``n_hidden_neurons``, and for "auto" the more, the more rows there are.

    Examples
    --------
    >>> from cipherlearn.training._schedule import choose_neurons
    >>> [choose_neurons("auto", n_samples) for n_samples in (150, 1797, 3000, 20_000)]
    [24, 28, 46, 64]
    """
    if not isinstance(n_hidden_neurons, str):
        return n_hidden_neurons
    if n_hidden_neurons != "auto":
        raise ValueError(
            'module__n_hidden_neurons must be "auto", an int or a sequence of int. '
            f"Got {n_hidden_neurons!r}."
        )
    return min(_MOST_NEURONS, max(_FEWEST_NEURONS, n_samples // _ROWS_OF_A_NEURON))


def choose_batch_size(batch_size: int | None, n_samples: int) -> int:
    """Return ``batch_size``, for -1 all rows, and for None the more, the more rows there are.

    Examples
    --------
    >>> from cipherlearn.training._schedule import choose_batch_size
    >>> [choose_batch_size(None, n_samples) for n_samples in (150, 5120, 20_000, 60_000)]
    [64, 64, 256, 512]
    """
    if batch_size == -1:
        return n_samples
    if batch_size is not None:
        return batch_size
    chosen = _SMALLEST_BATCH
    while chosen < _LARGEST_BATCH and chosen * _BATCHES < n_samples:
        chosen *= 2
    return chosen


def choose_epochs(max_epochs: int | None, batch_size: int | None, n_samples: int) -> int:
    """Return ``max_epochs``, or for None as many as make enough steps."""
    if max_epochs is not None:
        check_int("max_epochs", max_epochs, 1)
        return max_epochs
    n_batches = math.ceil(n_samples / choose_batch_size(batch_size, n_samples))
    return min(_MAX_EPOCHS, max(_MIN_EPOCHS, math.ceil(_STEPS / n_batches)))


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
    title : str
        Name for progress bars.
    """

    is_warmup: bool
    first_epoch: int
    n_epochs: int
    title: str = "Fine-tuning"

    def progress(self, epoch: int) -> float:
        """Part of the phase done, from 0 to 1, at the start of the history's ``epoch``-th."""
        done = epoch - 1 - self.first_epoch
        return min(1.0, max(0.0, done / max(1, self.n_epochs)))


class Schedule:
    """Phases of one training, and the quantization of the network between them.

    Parameters
    ----------
    warmup : float
        Fraction of the epochs that train the float network.
    percentile : float
        Codes span each neuron's activation between percentiles ``100 - percentile`` and
        ``percentile`` of the training data.
    distillation : float
        Share of the teacher's outputs in the targets of the fine-tuning.
    augment : bool, default=True
        Whether a larger float network, where it is better than this one, labels noisy copies of
        the rows and shares in the targets.
    teacher : torch module, default=None
        Teacher of a network that is quantized already. Otherwise the float network is the teacher.
    large_teacher : torch module, default=None
        Float network that is to be converted. It labels the noisy copies, and ``distillation`` is
        its share in the targets of the rows, in both phases. Otherwise one is trained.

    References
    ----------
    Polino, Pascanu and Alistarh, "Model compression via distillation and quantization", 2018.
    """

    def __init__(
        self,
        warmup: float,
        percentile: float,
        distillation: float,
        augment: bool = True,
        teacher: torch.nn.Module | None = None,
        large_teacher: torch.nn.Module | None = None,
    ) -> None:
        for name, value, low, high in (
            ("warmup", warmup, 0, 1),
            ("percentile", percentile, 50, 100),
            ("distillation", distillation, 0, 1),
        ):
            if not low <= value <= high:
                raise ValueError(
                    f"callbacks__quantization__{name} must be between {low} and {high}. "
                    f"Got {value!r}."
                )
        self.warmup = warmup
        self.percentile = percentile
        self.distillation = distillation
        self.augment = augment
        self.teacher = teacher
        self.large_teacher = large_teacher
        self.share = _LARGE_SHARE if large_teacher is None else distillation

    def phases(self, net, n_epochs: int) -> Iterator[Phase]:
        """Yield each phase when it begins. At least one epoch of a float network fine-tunes it."""
        if not net.module_.quantized:
            n_warmup = min(n_epochs - 1, math.ceil(self.warmup * n_epochs))
            yield Phase(True, len(net.history), n_warmup, "Float warm-up")
            n_epochs -= n_warmup
        yield Phase(False, len(net.history), n_epochs)

    def begin_epoch(self, net, dataset) -> None:
        """Learn how inputs are encoded, and quantize the network when the warm-up has ended."""
        module = net.module_
        # The history outlives ``phase_``, which is only the last. skorch's loggers know events.
        net.history.record("event_quantized", not net.phase_.is_warmup)
        if not module.encoders[0].fitted:
            module.fit_encoder(_features(net, dataset), net.verbose)
        if not net.phase_.is_warmup and not module.quantized:
            prune(module, progress=1.0)
            if self.distillation > 0 and self.large_teacher is None:
                self.teacher = copy.deepcopy(module).eval()
            X = _features(net, dataset)
            widest = max(linear.in_features for linear in module.linears)
            rows = dense_rows(X, sample_rows(X.shape[0], _CALIBRATION_VALUES // widest))
            module.calibrate(torch.as_tensor(rows, device=net.device), self.percentile)
            # The weights are in other units now, so momenta no longer fit.
            net.optimizer_.state.clear()

    def find_teacher(self, net, X, y, sample_weight) -> None:
        """Train a larger float network, unless one is given, and keep it if it can teach."""
        if self.large_teacher is None and self.augment and self.distillation > 0:
            self.large_teacher = train_teacher(net, X, y, sample_weight)

    @torch.no_grad()
    def augmented(self, net, batch: tuple[Any, torch.Tensor]) -> tuple[Any, torch.Tensor]:
        """Add a noisy copy of each row to a batch, labelled by the larger teacher if there is one.

        Targets of the rows are mixed with what it says of them.
        """
        if self.large_teacher is None:
            return batch
        X, y_true = batch
        features = torch.as_tensor(X["X"] if isinstance(X, dict) else X, device=net.device)
        n_rows = len(features)
        both = torch.cat([features, swap_noise(features)]) if self.augment else features
        outputs = self.large_teacher(both)
        y_true = y_true.to(net.device)
        if not y_true.is_floating_point():
            outputs = outputs.softmax(dim=1)
            y_true = torch.nn.functional.one_hot(y_true, outputs.shape[1])
        of_rows = torch.lerp(y_true.to(outputs), outputs[:n_rows], self.share)
        targets = torch.cat([of_rows, outputs[n_rows:]])
        if isinstance(X, dict):
            weight = X["sample_weight"].repeat(len(both) // n_rows)
            return {"X": both, "sample_weight": weight}, targets
        return both, targets

    @torch.no_grad()
    def soften(self, net, X, y_true: torch.Tensor) -> torch.Tensor:
        """Mix the teacher's outputs for a batch, if there is a teacher, into its targets."""
        if self.teacher is None or self.distillation == 0:
            return y_true
        X = torch.as_tensor(X["X"] if isinstance(X, dict) else X, device=net.device)
        outputs = self.teacher(X)
        if isinstance(net.criterion_, torch.nn.CrossEntropyLoss):
            outputs = outputs.softmax(dim=1)
            y_true = torch.nn.functional.one_hot(y_true, outputs.shape[1])
        elif outputs.shape != y_true.shape:
            return y_true
        return torch.lerp(y_true.to(outputs), outputs, self.distillation)


def _features(net, dataset) -> Any:
    """Return the features of a skorch dataset, as a tensor unless they are sparse."""
    X, _ = arrays_of(dataset)
    X = X["X"] if isinstance(X, dict) else X
    return X if is_sparse(X) else torch.as_tensor(X, device=net.device)
