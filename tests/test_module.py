"""The torch module: validation, agreement with Brevitas, conversions that keep the function."""

from __future__ import annotations

import copy
import functools
import pickle

import numpy as np
import pytest
import torch
from brevitas.nn import QuantIdentity
from cases import random_module

from cipherlearn import SparseQuantNeuralNetImpl
from cipherlearn._layers import AffineQuantizer, SparseQuantLinear


def outputs(module, X):
    with torch.no_grad():
        return module(torch.as_tensor(X))


def widths(module):
    return [module.linears[0].in_features, *(linear.out_features for linear in module.linears)]


# ---------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        ("input_dim", 0, "input_dim must be an integer of at least 1. Got 0."),
        ("n_outputs", 0, "n_outputs must be an integer of at least 1. Got 0."),
        ("n_layers", 0, "n_layers must be an integer of at least 1. Got 0."),
        ("n_layers", 2.0, "n_layers must be an integer of at least 1. Got 2.0."),
        ("n_layers", True, "n_layers must be an integer of at least 1. Got True."),
        ("n_hidden_neurons", 0, "n_hidden_neurons must be an integer of at least 1. Got 0."),
        ("n_hidden_neurons", [0], "n_hidden_neurons must be an integer of at least 1. Got 0."),
        ("n_hidden_neurons", 3.5, "n_hidden_neurons must be an integer of at least 1. Got 3.5."),
        ("n_w_bits", 1, "n_w_bits must be an integer from 2 to 8. Got 1."),
        ("n_w_bits", 9, "n_w_bits must be an integer from 2 to 8. Got 9."),
        ("n_a_bits", 0, "n_a_bits must be an integer from 1 to 8. Got 0."),
        ("n_a_bits", "2", "n_a_bits must be an integer from 1 to 8. Got '2'."),
        ("n_accum_bits", 0, "n_accum_bits must be an integer from 1 to 16. Got 0."),
        ("n_accum_bits", 17, "n_accum_bits must be an integer from 1 to 16. Got 17."),
        ("n_hidden_accum_bits", 0, "n_hidden_accum_bits must be an integer from 1 to 16. Got 0."),
        (
            "n_hidden_neurons",
            [4, 4],
            "n_hidden_neurons must be an int, or hold one width per hidden layer "
            "(n_layers - 1 = 1). Got [4, 4].",
        ),
    ],
)
def test_a_parameter_out_of_range_is_refused_with_its_rule_and_value(parameter, value, message):
    arguments = {"input_dim": 3, "n_outputs": 2, parameter: value}
    with pytest.raises(ValueError, match=f"{parameter} must be") as error:
        SparseQuantNeuralNetImpl(**arguments)
    assert str(error.value) == message


def test_a_budget_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"Got floor\(1.0 \* 0\) = 0 with 3 accumulator bits"):
        SparseQuantNeuralNetImpl(3, 2, n_accum_bits=3)


@pytest.mark.parametrize(
    ("n_layers", "n_hidden_neurons", "expected"),
    [
        (1, 16, [3, 2]),
        (1, [], [3, 2]),
        (2, 5, [3, 5, 2]),
        (3, 5, [3, 5, 5, 2]),
        (3, [6, 4], [3, 6, 4, 2]),
        (3, (6, 4), [3, 6, 4, 2]),
        (2, np.int64(5), [3, 5, 2]),
    ],
)
def test_hidden_widths_are_one_int_or_one_per_layer(n_layers, n_hidden_neurons, expected):
    module = SparseQuantNeuralNetImpl(3, 2, n_layers, n_hidden_neurons)
    assert widths(module) == expected
    assert outputs(module, torch.zeros(7, 3)).shape == (7, 2)


def test_bit_widths_may_be_numpy_integers():
    bits = {"n_w_bits": np.int64(3), "n_a_bits": np.int64(2), "n_accum_bits": np.int32(8)}
    module = SparseQuantNeuralNetImpl(3, 2, **bits)
    assert module.budgets == [12, 12]
    assert outputs(module, torch.zeros(7, 3)).shape == (7, 2)


def test_hidden_widths_may_be_an_array():
    module = SparseQuantNeuralNetImpl(3, 2, n_layers=3, n_hidden_neurons=np.array([6, 4]))
    assert widths(module) == [3, 6, 4, 2]


def test_hidden_layers_may_have_accumulators_of_their_own():
    module = SparseQuantNeuralNetImpl(3, 2, 3, n_accum_bits=8, n_hidden_accum_bits=5)
    assert module.accum_bits == [5, 5, 8]
    # 10 = 31 // 3 levels fit 5 bits, so no more than 10 non-zero weights do.
    assert module.l1_limits == [10, 10, None]
    assert module.budgets == [10, 10, 28]


def test_every_layer_has_the_common_accumulator_by_default():
    module = SparseQuantNeuralNetImpl(3, 2, 3, n_accum_bits=6, n_hidden_neurons_multiplier=1.5)
    assert module.accum_bits == [6, 6, 6]
    assert module.budgets == [10, 10, 10]
    assert module.l1_limits == [None, None, None]


def test_the_budget_may_bound_magnitudes_in_every_layer():
    module = SparseQuantNeuralNetImpl(3, 2, 2, n_accum_bits=6, n_w_bits=4, budget="l1")
    assert module.l1_limits == [21, 21]


def test_an_unknown_budget_is_refused():
    with pytest.raises(ValueError, match=r"""budget must be "omega" or "l1". Got 'l2'."""):
        SparseQuantNeuralNetImpl(3, 2, budget="l2")


@pytest.mark.parametrize("n_bits", [2, 3, 5, 8])
def test_projection_reaches_the_limit_by_small_steps_towards_zero(n_bits):
    torch.manual_seed(n_bits)
    layer = SparseQuantLinear(30, 8, n_bits, l1_limit=7)
    layer.calibrate()
    assert layer.effective_weight().abs().sum(dim=1).max() <= 7
    with torch.no_grad():
        layer.weight.mul_(20)
        before = layer.effective_weight()
        layer.project()
        after = layer.effective_weight()
    assert (before.abs().sum(dim=1) > 7).all()
    assert (after.abs().sum(dim=1) == 7).all()
    assert (after.abs() <= before.abs()).all()
    assert (after * before >= 0).all()


def test_projection_keeps_a_neuron_within_its_limit():
    layer = SparseQuantLinear(3, 1, 3, l1_limit=4)
    with torch.no_grad():
        layer.quantized.fill_(True)
        layer.weight.copy_(torch.tensor([[2.2, -1.4, 0.4]]))
        layer.project()
    assert layer.weight.tolist() == [pytest.approx([2.2, -1.4, 0.4])]


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (torch.nn.Tanh, torch.nn.Tanh),
        (torch.nn.Sigmoid, torch.nn.Sigmoid),
        (functools.partial(torch.nn.LeakyReLU, 0.25), torch.nn.LeakyReLU),
    ],
)
def test_the_activation_is_built_once_per_hidden_layer(activation, expected):
    module = SparseQuantNeuralNetImpl(3, 2, n_layers=3, activation_function=activation)
    assert [type(built) for built in module.activations] == [expected, expected]


class Log(torch.nn.Module):
    def forward(self, x):
        return x.log()


def test_an_activation_that_mixes_its_inputs_is_refused():
    with pytest.raises(
        ValueError, match=r"must be element-wise.*Softmax\(dim=1\) mixes its inputs"
    ):
        SparseQuantNeuralNetImpl(3, 2, activation_function=functools.partial(torch.nn.Softmax, 1))


def test_an_activation_undefined_below_zero_is_not_said_to_mix_its_inputs():
    with pytest.raises(ValueError, match=r"Log\(\)") as error:
        SparseQuantNeuralNetImpl(3, 2, activation_function=Log)
    assert "mixes" not in str(error.value)
    assert error.match("NaN|finite")


def test_a_partial_activation_keeps_its_arguments_through_pickle():
    activation = functools.partial(torch.nn.LeakyReLU, 0.25)
    module = SparseQuantNeuralNetImpl(3, 2, activation_function=activation)
    loaded = pickle.loads(pickle.dumps(module))
    assert loaded.activations[0].negative_slope == 0.25


# ---------------------------------------------------------------------- Brevitas


@pytest.mark.parametrize("n_bits", range(2, 9))
def test_quantized_weights_are_those_of_brevitas(n_bits):
    torch.manual_seed(n_bits)
    layer = SparseQuantLinear(20, 6, n_bits)
    layer.keep_largest(15)
    layer.calibrate()
    with torch.no_grad():
        # Masked weights are 0 in the parameter of a trained layer or not; Brevitas sees no mask.
        layer.weight.mul_(layer.mask)
        effective = layer.effective_weight()
        quantized = layer.quant_weight()
    assert torch.equal(effective, quantized.int().to(torch.float32))
    assert quantized.scale.item() == 1.0
    # Calibration leaves few levels unused.
    assert effective.abs().max() > 0.75 * (2 ** (n_bits - 1) - 1)
    assert (effective.count_nonzero(dim=1) <= 15).all()


@pytest.mark.parametrize("n_bits", range(1, 9))
def test_codes_are_those_of_brevitas(n_bits):
    quantizer = AffineQuantizer(3, n_bits)
    quantizer.calibrate(torch.tensor([-1.0, 0.0, 10.0]), torch.tensor([2.0, 1e-3, 50.0]))
    generator = torch.Generator().manual_seed(n_bits)
    x = torch.randn(500, 3, generator=generator) * torch.tensor([3.0, 1e-3, 40.0])
    with torch.no_grad():
        codes = quantizer(x)
        brevitas = QuantIdentity.forward(quantizer, (x - quantizer.offset) / quantizer.step)
    assert torch.equal(codes, brevitas)
    assert codes.min() == 0
    assert codes.max() == 2**n_bits - 1


def test_halves_round_as_in_brevitas():
    quantizer = AffineQuantizer(1, 3)
    quantizer.calibrate(torch.tensor([0.0]), torch.tensor([7.0]))
    with torch.no_grad():
        quantizer.log_step.zero_()
        x = torch.arange(-2, 18)[:, None] / 2
        codes = quantizer(x)
        assert torch.equal(codes, QuantIdentity.forward(quantizer, x))
    assert codes[:8].ravel().tolist() == [0, 0, 0, 0, 1, 2, 2, 2]


# ---------------------------------------------------------------------- layers


def test_keep_largest_masks_all_but_the_largest_magnitudes_of_each_neuron():
    layer = SparseQuantLinear(4, 2, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.1, -5.0, 2.0, 0.0], [3.0, 1.0, -1.5, 0.2]]))
    layer.keep_largest(2)
    assert layer.mask.tolist() == [[0, 1, 1, 0], [1, 0, 1, 0]]
    assert layer.effective_weight().tolist() == [[0, -5, 2, 0], [3, 0, -1.5, 0]]
    layer.keep_largest(99)
    assert layer.mask.sum() == 8


def test_substitute_input_keeps_the_function():
    torch.manual_seed(0)
    layer = SparseQuantLinear(5, 4, 3)
    layer.keep_largest(3)
    with torch.no_grad():
        layer.log_gain.normal_()
        x = torch.randn(50, 5)
        before = layer(x)
        offset, step = torch.randn(5), torch.rand(5) + 0.1
        layer.substitute_input(offset, step)
        after = layer((x - offset) / step)
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    assert before.std() > 0.1


def test_a_float_module_ignores_the_quantizers_levels():
    module = SparseQuantNeuralNetImpl(2, 1, n_layers=1)
    assert not module.quantized
    with torch.no_grad():
        module.linears[0].weight.fill_(0.3)
        module.linears[0].bias.fill_(0.5)
        assert module(torch.tensor([[0.2, 0.4]])).item() == pytest.approx(0.68)


def test_normalize_centres_and_scales_the_features():
    X = torch.tensor([[1e6, 5.0], [1e6 + 2, 5.0]], dtype=torch.float64)
    module = SparseQuantNeuralNetImpl(2, 1)
    module.normalize(X)
    units = module.quantizers[0](X).detach()
    torch.testing.assert_close(units, torch.tensor([[-1.0, 0], [1.0, 0]], dtype=torch.float64))


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_calibration_at_8_bits_nearly_keeps_the_function(n_layers):
    torch.manual_seed(n_layers)
    X = torch.randn(400, 6, dtype=torch.float64) * 3 + 10
    module = SparseQuantNeuralNetImpl(
        6, 3, n_layers, n_w_bits=8, n_a_bits=8, n_accum_bits=16, n_hidden_neurons_multiplier=6.0
    )
    module.normalize(X)
    before = outputs(module, X)
    module.calibrate(X, percentile=100.0)
    after = outputs(module, X)
    assert module.quantized
    assert (after - before).abs().max() < 0.1 * before.std()
    assert not torch.equal(after, before)


def test_calibration_at_2_bits_gives_ternary_weights_and_codes_up_to_3():
    module, X = random_module(0, n_layers=3)
    for linear in module.linears:
        assert linear.effective_weight().unique().tolist() == [-1, 0, 1]
    codes = module.quantizers[0](torch.from_numpy(X)).detach()
    assert codes.unique().tolist() == [0, 1, 2, 3]


def test_a_constant_feature_gets_code_zero():
    X = torch.tensor([[7.0, 0.0], [7.0, 1.0], [7.0, 2.0]], dtype=torch.float64)
    module = SparseQuantNeuralNetImpl(2, 1)
    module.normalize(X)
    module.calibrate(X)
    assert module.quantizers[0](X)[:, 0].tolist() == [0, 0, 0]
    assert outputs(module, X).isfinite().all()


def test_rare_values_of_a_nearly_constant_feature_keep_their_codes():
    X = torch.zeros(1000, 1, dtype=torch.float64)
    X[0] = 6.0
    module = SparseQuantNeuralNetImpl(1, 1)
    module.calibrate(X)
    assert module.quantizers[0](X)[:2].ravel().tolist() == [3, 0]


# ---------------------------------------------------------------------- copies


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))],
    ids=["deepcopy", "pickle"],
)
def test_copies_compute_the_same_and_share_nothing(duplicate, quantized):
    torch.manual_seed(0)
    module = SparseQuantNeuralNetImpl(4, 3, n_layers=3, n_hidden_neurons=[5, 6])
    X = torch.randn(30, 4)
    module.linears[0].keep_largest(2)
    if quantized:
        module.calibrate(X)
    module.eval()
    before = outputs(module, X)
    twin = duplicate(module)
    assert twin.quantized is quantized
    assert not twin.training
    assert torch.equal(outputs(twin, X), before)
    with torch.no_grad():
        twin.linears[0].weight.zero_()
        twin.linears[-1].bias.add_(1.0)
    assert torch.equal(outputs(module, X), before)
    assert not torch.equal(outputs(twin, X), before)


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))],
    ids=["deepcopy", "pickle"],
)
def test_an_optimizer_copied_with_its_module_still_trains_it(duplicate):
    torch.manual_seed(0)
    module = SparseQuantNeuralNetImpl(4, 3)
    pair = duplicate((module, torch.optim.SGD(module.parameters(), lr=0.1)))
    twin, optimizer = pair
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in twin.parameters()}
    X = torch.randn(20, 4)
    before = outputs(twin, X)
    twin(X).square().sum().backward()
    optimizer.step()
    assert not torch.equal(outputs(twin, X), before)


def test_state_dicts_move_a_quantized_module():
    module, X = random_module(1)
    twin = SparseQuantNeuralNetImpl(4, 3)
    twin.load_state_dict(module.state_dict())
    assert twin.quantized
    assert torch.equal(outputs(twin, X), outputs(module, X))
