"""From a trained module to an integer program."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import random_module

from cipherlearn import SparseQuantNeuralNetImpl
from cipherlearn.lowering._lower import lower
from cipherlearn.nn._activations import LearnedActivation


class Exp(torch.nn.Module):
    """Infinite for large inputs."""

    def forward(self, x):
        return x.exp()


class UndefinedFarBelowZero(torch.nn.Module):
    """NaN below -50."""

    def forward(self, x):
        return torch.where(x < -50, torch.nan, x)


def test_lowering_needs_a_quantized_module():
    with pytest.raises(ValueError, match=r"Only a quantized module has an integer form"):
        lower(SparseQuantNeuralNetImpl(2, 1))


def test_lowering_does_not_change_the_module():
    module, _ = random_module(0)
    module.train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    lower(module)
    assert module.training
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_lowered_weights_are_the_modules_integers():
    options = {"n_w_bits": 4, "n_a_bits": 3, "n_accum_bits": 12, "n_hidden_neurons": 5}
    module, _ = random_module(1, n_layers=3, **options)
    program = lower(module)
    assert program.n_bootstraps == 10  # no neuron is dead
    for linear, layer in zip(module.linears, program.layers, strict=True):
        with torch.no_grad():
            weights = linear.effective_weight().numpy()
        # Some codes of the inputs are not read by any neuron.
        np.testing.assert_array_equal(layer.weights, weights[:, weights.any(axis=0)])
        assert linear.max_level - 7 <= np.abs(layer.weights).max() <= linear.max_level


def test_an_activation_that_gives_nan_is_refused():
    activation = LearnedActivation(UndefinedFarBelowZero(), 2)
    activation.calibrate(torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 2.0]))
    with pytest.raises(ValueError, match=r"UndefinedFarBelowZero gives NaN. Choose another"):
        activation.calibrate(torch.tensor([-1e6, 0.0]), torch.tensor([1.0, 2.0]))


def test_an_infinite_activation_saturates():
    module, X = random_module(0, activation_function=Exp)
    activation = module.activations[0]
    activation.calibrate(activation.first, activation.first + 1000)
    assert activation.function(activation.first + 1000).isinf().all()
    assert activation.values.isfinite().all()
    expected = module(torch.from_numpy(X)).detach().numpy()
    program = lower(module)
    np.testing.assert_array_equal(program(X), expected)
    assert [layer.tables.max() for layer in program.hidden_layers] == [3]


def test_diverged_parameters_are_refused_by_name():
    module, _ = random_module(0)
    with torch.no_grad():
        module.linears[1].bias[0] = torch.nan
    with pytest.raises(ValueError, match=r"linears.1.bias is not: training diverged. Lower lr"):
        lower(module)
