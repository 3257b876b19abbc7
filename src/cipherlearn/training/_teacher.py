"""A float teacher of a network's own: larger than the network, and without its codes.

It labels noisy copies of the training rows, from which a sparse network of few neurons learns what
it would not from the rows alone.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cipherlearn._features import is_sparse

__all__ = ["Teacher", "swap_noise", "train_teacher"]

# Networks whose outputs are averaged, and hidden neurons of each.
_MEMBERS, _HIDDEN = 4, 64

# Steps of the teacher, and of the copy of the network that it is compared with.
_STEPS, _STUDENT_STEPS, _BATCH = 600, 300, 128
_LR, _STUDENT_LR, _DECAY = 5e-3, 1e-2, 0.03

# Fewer rows teach a larger network nothing, and on more than these nothing is scored.
_FEWEST_ROWS, _HELD_OUT, _MOST_HELD_OUT = 500, 0.2, 2000

# Part of a row's features that noise replaces by those of another row.
_SWAPPED = 0.2


class Teacher(nn.Module):
    """Mean of some float networks of one hidden layer, on standardized features.

    Parameters
    ----------
    X : torch.Tensor of shape (n_samples, n_features)
        Features of the training data.
    n_outputs : int
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, X: Tensor, n_outputs: int) -> None:
        super().__init__()
        scale = X.std(dim=0, unbiased=False)
        self.register_buffer("mean", X.mean(dim=0))
        self.register_buffer("scale", torch.where(scale > 0, scale, torch.ones_like(scale)))
        shapes = [(X.shape[1], _HIDDEN), (_HIDDEN, n_outputs)]
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(_MEMBERS, *shape) * math.sqrt(2 / shape[0]))
            for shape in shapes
        )
        self.biases = nn.ParameterList(
            nn.Parameter(torch.zeros(_MEMBERS, 1, shape[1])) for shape in shapes
        )
        self.to(X.device)

    def members(self, X: Tensor) -> Tensor:
        """Compute outputs of each network, of shape (n_members, n_samples, n_outputs)."""
        standardized = ((X - self.mean) / self.scale).float().expand(_MEMBERS, -1, -1)
        hidden = torch.baddbmm(self.biases[0], standardized, self.weights[0]).relu()
        return torch.baddbmm(self.biases[1], hidden, self.weights[1])

    def forward(self, X: Tensor) -> Tensor:
        return self.members(X).mean(dim=0)


def train_teacher(net: Any, X: Any, y: NDArray, sample_weight: NDArray) -> Teacher | None:
    """Train a teacher for a net, and return it if it is better than a copy of its network.

    Both train on the same rows and are compared on others. The copy shows how well the network
    learns, and shares its encoders, which are fitted here.

    Parameters
    ----------
    net : NeuralNetClassifier or NeuralNetRegressor
        A net that is initialized and not trained.
    X : ndarray or sparse matrix of shape (n_samples, n_features)
    y, sample_weight : ndarray
        What it will train on.

    Returns
    -------
    Teacher or None
        None also for sparse features, for few rows, or with a criterion that is not the default.
    """
    if net.criterion is not None or is_sparse(X) or len(y) < _FEWEST_ROWS:
        return None
    features = torch.as_tensor(X, device=net.device)
    targets = torch.as_tensor(y, device=net.device)
    weight = torch.as_tensor(sample_weight / sample_weight.mean(), device=net.device).float()
    order = torch.randperm(len(y))
    n_held_out = int(min(_MOST_HELD_OUT, _HELD_OUT * len(y)))
    held_out, rows = order[:n_held_out], order[n_held_out:]

    def loss(outputs: Tensor, batch: Tensor) -> Tensor:
        losses = net.criterion_(outputs, targets[batch])
        return (losses.reshape(len(batch), -1).mean(dim=1) * weight[batch]).mean()

    teacher = Teacher(features[rows], net._n_outputs())
    _optimize(
        teacher,
        lambda batch: sum(loss(outputs, batch) for outputs in teacher.members(features[batch])),
        rows, _STEPS, _LR, _DECAY,
    )  # fmt: skip
    net.module_.fit_encoder(features, net.verbose)
    student = copy.deepcopy(net.module_)
    _optimize(
        student,
        lambda batch: loss(student(features[batch]), batch),
        rows, _STUDENT_STEPS, _STUDENT_LR, min(3.0, 1000 / len(rows)),
    )  # fmt: skip
    scores = []
    with torch.no_grad():
        for model in (teacher.eval(), student.eval()):
            outputs = model(features[held_out]).cpu().numpy()
            scores.append(sample_weight[held_out] @ net._row_scores(outputs, y[held_out]))
    return teacher if scores[0] > scores[1] else None


def _optimize(
    model: nn.Module,
    loss_of: Callable[[Tensor], Any],
    rows: Tensor,
    n_steps: int,
    lr: float,
    weight_decay: float,
) -> None:
    """Minimize a loss of batches of rows, with a learning rate that falls along half a cosine."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    batches: list[Tensor] = []
    for step in range(n_steps):
        optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / n_steps))
        batches = batches or list(rows[torch.randperm(len(rows))].split(_BATCH))
        loss = loss_of(batches.pop())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def swap_noise(X: Tensor) -> Tensor:
    """Replace some features of each row by those of another."""
    others = X[torch.randperm(len(X), device=X.device)]
    return torch.where(torch.rand(X.shape, device=X.device) < _SWAPPED, others, X)
