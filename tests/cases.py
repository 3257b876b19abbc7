"""Networks, data and settings that several test files share."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cipherlearn import SparseQuantNeuralNetImpl
from cipherlearn.engines import engine_name
from cipherlearn.program._encoder import InputQuantizer

ENGINE = engine_name()


def needs_concrete_python(reason: str) -> pytest.MarkDecorator:
    """Skip on the other engine, for what it lacks or takes many minutes for."""
    return pytest.mark.skipif(ENGINE != "concrete-python", reason=f"{ENGINE}: {reason}")


# A network whose keys take a second.
TINY = {
    "module__n_hidden_neurons": 2,
    "module__n_w_bits": 2,
    "module__n_a_bits": 2,
    "module__n_accum_bits": 4,
    "module__n_hidden_accum_bits": None,
    "module__n_hidden_neurons_multiplier": 3.0,
    "max_epochs": 20,
    "lr": 0.03,
    "random_state": 0,
}


def random_module(seed: int, n_features: int = 4, n_outputs: int = 3, **kwargs):
    """A quantized module with random weights, and the data that calibrated it."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(64, n_features, generator=generator, dtype=torch.float64) * 5 + 100
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = SparseQuantNeuralNetImpl(n_features, n_outputs, **kwargs)
        module.fit_encoder(X)
        for linear, budget in zip(module.linears, module.budgets, strict=True):
            linear.keep_largest(budget)
        module.calibrate(X)
    return module.eval(), X.numpy()


def rounding_quantizer(offset, step, n_bits):
    """One code per feature, which rounds ``(x - offset) / step`` where that is in range."""
    offset, step = np.asarray(offset), np.asarray(step)
    thresholds = offset[:, None] + (np.arange(1, 2**n_bits) - 0.5) * step[:, None]
    return InputQuantizer(len(offset), np.arange(len(offset)), thresholds)


def far_and_near(X: np.ndarray, n_rows: int, seed: int) -> np.ndarray:
    """Rows inside the range of the data, and some far beyond it."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(X.mean(axis=0), 2 * X.std(axis=0), size=(n_rows, X.shape[1]))
    rows[::5] *= 1e6
    return rows


def blobs(n_classes: int = 3, n_rows: int = 60, seed: int = 0):
    """Well separated classes."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_rows) % n_classes
    centres = 4 * rng.normal(size=(n_classes, 4))
    return rng.normal(size=(n_rows, 4)) + centres[y], y
