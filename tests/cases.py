"""Networks, data and settings that several test files share."""

from __future__ import annotations

import contextlib
import pickle

import numpy as np
import pytest
import torch

from cipherlearn import (
    EngineNotFoundError,
    IntegerProgram,
    NeuralNetClassifier,
    NeuralNetRegressor,
    SparseQuantNeuralNetImpl,
)
from cipherlearn.engines import engine_name
from cipherlearn.program._decoder import OutputScaler
from cipherlearn.program._encoder import InputQuantizer
from cipherlearn.program._layer import IntegerLayer

ENGINE = None
with contextlib.suppress(EngineNotFoundError):
    ENGINE = engine_name()

needs_engine = pytest.mark.skipif(ENGINE is None, reason="no engine is installed")


def needs_concrete_python(reason: str) -> pytest.MarkDecorator:
    """Skip without that engine, for what the other lacks or takes many minutes for."""
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
# One layer: no bootstraps, and keys in an instant.
LINEAR = {**TINY, "module__n_layers": 1, "module__n_accum_bits": 8}

# The larger teacher that 500 rows and more get takes seconds, whatever the network.
NO_TEACHER = {"callbacks__quantization__augment": False}

# A budget of 3 weights in every layer, whatever the defaults.
THREE_WEIGHTS = {
    "module__n_w_bits": 2,
    "module__n_a_bits": 2,
    "module__n_accum_bits": 5,
    "module__n_hidden_accum_bits": None,
    "module__n_hidden_neurons_multiplier": 1.0,
    "module__n_codes_per_feature": 1,
    "module__n_components": 0,
    "module__wide_path": False,
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


def classes(n_classes: int = 3):
    """Blobs whose labels are words."""
    X, y = blobs(n_classes)
    return X, np.array(["ant", "bee", "cow"])[y]


def linear_program(weights, n_bits: int = 2):
    """A program of one layer, whose inputs and outputs are integers."""
    weights = np.atleast_2d(weights)
    n_outputs, n_inputs = weights.shape
    largest = np.full(n_inputs, 2**n_bits - 1)
    return IntegerProgram.chain(
        rounding_quantizer(np.zeros(n_inputs), np.ones(n_inputs), n_bits),
        (IntegerLayer(weights, 0 * largest, largest),),
        OutputScaler(np.ones(n_outputs), np.zeros(n_outputs)),
    )


def classifier(**parameters):
    """Fast to fit, and good enough for well separated classes."""
    defaults = {"module__n_hidden_neurons": 8, "max_epochs": 15, "lr": 0.03, "random_state": 0}
    return NeuralNetClassifier(**{**defaults, **parameters})


def regressor(**parameters):
    defaults = {"module__n_hidden_neurons": 8, "max_epochs": 30, "lr": 0.03, "random_state": 0}
    return NeuralNetRegressor(**{**defaults, **parameters})


def quick(**parameters):
    """For behaviours that do not depend on accuracy."""
    return classifier(**{"module__n_hidden_neurons": 3, "max_epochs": 2, **parameters})


def plane(n_rows=80, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, 3))
    return X, X @ [2.0, -1.0, 0.5]


def same_network(a, b):
    return all(
        np.array_equal(left.weights, right.weights)
        for left, right in zip(a.program_.layers, b.program_.layers, strict=True)
    ) and np.array_equal(a.program_.scaler.bias, b.program_.scaler.bias)


def network(**kwargs):
    return NeuralNetClassifier(**{**TINY, **kwargs})


def inner(model):
    """The network of any of the models."""
    while not hasattr(model, "program_"):
        model = model[-1] if hasattr(model, "steps") else model.best_estimator_
    return model


def pickled(clf):
    return pickle.loads(pickle.dumps(clf))
