"""The wide path: sums that nothing looks up, from the input codes straight to the outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import random_module
from hypothesis import given, settings
from hypothesis import strategies as st

from cipherlearn import SparseQuantNeuralNetImpl
from cipherlearn.lowering._lower import lower


def test_it_is_a_second_input_of_the_same_codes_and_a_second_output():
    module, X = random_module(0, n_hidden_neurons=5)
    program = lower(module)
    assert len(program.inputs) == len(program.outputs) == 2
    _, wide = program.output_layers
    assert wide.tables is None
    largest = np.abs(wide.weights).max()
    assert 100 < largest <= 127
    # Every feature reaches the outputs.
    assert set(program.quantizer.feature[program.inputs[1]]) == {0, 1, 2, 3}
    sums = program.run(program.quantize(X))
    assert sums.shape == (64, 6)
    gain, bias = program.scaler.gain, program.scaler.bias
    sums = (sums + program.scaler.offset).astype(np.float32) * gain
    np.testing.assert_array_equal(program(X), sums[:, :3] + sums[:, 3:] + bias)


def test_it_takes_no_bootstrap_and_leaves_those_of_hidden_layers_as_they_are():
    both, alone = (
        lower(random_module(0, n_hidden_neurons=5, wide_path=wide)[0]) for wide in (True, False)
    )
    assert both.n_bootstraps == alone.n_bootstraps
    assert both.hidden_layers[0].n_accum_bits == alone.hidden_layers[0].n_accum_bits


def test_one_layer_is_the_wide_path_alone():
    module = SparseQuantNeuralNetImpl(30, 3, n_layers=1, n_accum_bits=4, n_w_bits=8, n_a_bits=3)
    (plan,) = module.plans
    assert (plan.weight_bits, plan.accum_bits, plan.max_span) == (8, 16, 65535)
    assert plan.budget == plan.n_inputs
    assert module.linears[0].bias is not None
    program = lower(random_module(3, n_layers=1)[0])
    assert (program.n_bootstraps, len(program.inputs), len(program.outputs)) == (0, 1, 1)


def test_without_it_the_network_is_a_chain():
    module = SparseQuantNeuralNetImpl(30, 3, n_layers=3, n_hidden_neurons=5, wide_path=False)
    assert [plan.n_neurons for plan in module.plans] == [5, 5, 3]
    assert [plan.weight_bits for plan in module.plans] == [2, 2, 2]


@settings(max_examples=15)
@given(
    n_features=st.integers(1, 400),
    n_a_bits=st.integers(1, 8),
    scale=st.sampled_from([0.01, 1.0, 1000.0]),
    pruning=st.booleans(),
)
def test_its_sums_are_proven_to_fit_whatever_the_weights(n_features, n_a_bits, scale, pruning):
    torch.manual_seed(n_features)
    module = SparseQuantNeuralNetImpl(
        n_features, 2, n_layers=1, n_a_bits=n_a_bits, n_codes_per_feature=3, pruning=pruning
    )
    X = torch.randn(20, n_features)
    module.fit_encoder(X)
    wide = module.linears[-1]
    with torch.no_grad():
        wide.weight.copy_(scale * torch.ones_like(wide.weight))
    module.calibrate(X)
    with torch.no_grad():
        wide.weight.mul_(1000)
    wide.project()
    program = lower(module)
    assert program.layers[0].n_accum_bits <= 16
    with torch.no_grad():
        np.testing.assert_array_equal(program(X.numpy()), module.eval()(X).numpy())


@pytest.mark.parametrize("n_layers", [1, 2])
def test_its_weights_learn_in_both_phases(n_layers):
    module, X = random_module(1, n_layers=n_layers)
    (float_module,) = [SparseQuantNeuralNetImpl(4, 3, n_layers)]
    float_module.fit_encoder(torch.from_numpy(X))
    for network in (float_module, module):
        network.train()(torch.from_numpy(X)).square().sum().backward()
        wide = network.linears[-1]
        assert wide.weight.grad.abs().min() >= 0
        assert wide.weight.grad.abs().max() > 0
    assert module.linears[-1].log_gain.grad.abs().max() > 0
