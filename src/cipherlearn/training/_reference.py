"""Scores on training rows before and after quantization and pruning."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cipherlearn._exceptions import AccuracyLossWarning
from cipherlearn._features import dense_rows
from cipherlearn._samples import sample_rows

__all__ = ["Reference", "describe_scores"]

# Rows that are scored, first epochs after which they are, and points that may be lost silently.
_ROWS, _FIRST_EPOCHS, _POINTS = 2000, 3, 2.0

# Steps of fine-tuning below which a network is not trained yet, whatever its parameters.
_STEPS = 300


class Reference:
    """Score the network that the final one is measured by, while it trains.

    That is the float network: at the end of the warm-up, or after one of the first epochs if it was
    better then. Early it has most of its weights still, and has seen each row too seldom to know it
    by heart, which would let any smaller network look bad.

    Parameters
    ----------
    net : NeuralNetClassifier or NeuralNetRegressor
    X : ndarray or sparse matrix
    y, sample_weight : ndarray
        What it trains on.
    original : torch module, default=None
        Network that is pruned or converted, in place of the float network.
    """

    def __init__(
        self,
        net: Any,
        X: Any,
        y: NDArray,
        sample_weight: NDArray,
        original: torch.nn.Module | None = None,
    ) -> None:
        rows = sample_rows(len(y), _ROWS)
        self.X = torch.as_tensor(dense_rows(X, rows), device=net.device)
        self.y = y[rows]
        self.weight = sample_weight[rows] / sample_weight[rows].sum()
        self.net = net
        self.best = None if original is None else self.row_scores(original)
        self.has_original = original is not None
        self.prunes = self.has_original and bool(net.module_.quantized)

    def is_due(self) -> bool:
        """Whether an epoch has ended after which the float network is scored."""
        phase = self.net.phase_
        return phase.is_warmup and len(self.net.history) - phase.first_epoch <= _FIRST_EPOCHS

    @torch.no_grad()
    def row_scores(self, module: torch.nn.Module) -> NDArray:
        """Score each row. The weighted mean is the accuracy, or R²."""
        was_training = module.training
        outputs = module.eval()(self.X).cpu().numpy()
        module.train(was_training)
        return self.net._row_scores(outputs, self.y)

    def _remedy(self) -> str:
        if self.prunes:
            return "Lower n_prune_neurons_percentage."
        # Wider hidden sums gained most by far where much was lost, and more neurons little.
        first, n_bits = self.net.module_.plans[0].accum_bits, self.net.module__n_accum_bits
        if first < n_bits:
            return f"Raise module__n_hidden_accum_bits from {first} to {first + 1}."
        return f"Raise module__n_accum_bits from {n_bits} to {n_bits + 1}."

    def consider(self, module: torch.nn.Module) -> None:
        """Keep the scores of this network if they are the best so far, and nothing else is."""
        if self.has_original:
            return
        scores = self.row_scores(module)
        if self.best is None or self.weight @ scores > self.weight @ self.best:
            self.best = scores

    def compare(self, module: torch.nn.Module) -> None:
        """Let the estimator know both scores, and warn if too much was lost."""
        if self.best is None:
            return
        net, scores = self.net, self.row_scores(module)
        net.reference_score_ = float(self.weight @ self.best)
        net.training_score_ = float(self.weight @ scores)
        lost = self.best - scores
        mean = self.weight @ lost
        # A few rows prove nothing: the standard error of a weighted mean.
        error = np.sqrt(self.weight**2 @ (lost - mean) ** 2)
        n_steps = sum(len(epoch["batches"]) for epoch in net.history[net.phase_.first_epoch :])
        if net.warn_on_loss and n_steps >= _STEPS and 100 * (mean - error) > _POINTS:
            converts = self.has_original and not self.prunes
            cause = "conversion" if converts else "quantization and pruning"
            warnings.warn(
                f"On training rows the network loses {100 * mean:.1f} points by {cause}: its "
                f"{net._score_name} is {net.training_score_:.3f}, and was "
                f"{net.reference_score_:.3f} before. {self._remedy()} "
                "warn_on_loss=False turns this warning off.",
                AccuracyLossWarning,
                stacklevel=5,
            )


def describe_scores(net: Any) -> str | None:
    """Describe both scores in a sentence, or return None where they are not known."""
    if not hasattr(net, "reference_score_"):
        return None
    return (
        f"On training rows: {net._score_name} {net.training_score_:.3f}, and "
        f"{net.reference_score_:.3f} before quantization and pruning."
    )
