"""The torch module: validation, and conversions that keep the function."""

from __future__ import annotations

import copy
import functools
import pickle

import numpy as np
import pytest
import torch
from cases import random_module
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn import SparseQuantNeuralNetImpl
from cipherlearn.nn._layers import SparseQuantLinear


def outputs(module, X):
    with torch.no_grad():
        return module(torch.as_tensor(X))


def widths(module):
    hidden = [quantizer.offset.numel() for quantizer in module.quantizers]
    return [module.encoders[0].n_features, *hidden, module.linears[-1].out_features]


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
    module.fit_encoder(torch.randn(20, 3))
    assert outputs(module, torch.zeros(7, 3)).shape == (7, 2)


def test_bit_widths_may_be_numpy_integers():
    bits = {"n_w_bits": np.int64(3), "n_a_bits": np.int64(2), "n_accum_bits": np.int32(8)}
    module = SparseQuantNeuralNetImpl(3, 2, **bits, wide_path=False)
    assert module.budgets == [12, 12]
    module.fit_encoder(torch.randn(20, 3))
    assert outputs(module, torch.zeros(7, 3)).shape == (7, 2)


def test_hidden_widths_may_be_an_array():
    module = SparseQuantNeuralNetImpl(3, 2, n_layers=3, n_hidden_neurons=np.array([6, 4]))
    assert widths(module) == [3, 6, 4, 2]


def test_hidden_layers_may_have_accumulators_of_their_own():
    module = SparseQuantNeuralNetImpl(3, 2, 3, n_accum_bits=8, n_hidden_accum_bits=5)
    assert module.accum_bits == [5, 5, 8, 16]
    assert module.max_widths == [31, 31, None, 65535]
    assert module.budgets == [28, 28, 28, 48]


def test_every_layer_has_the_common_accumulator_by_default():
    module = SparseQuantNeuralNetImpl(
        3, 2, 3, n_accum_bits=6, n_hidden_neurons_multiplier=1.5, wide_path=False
    )
    assert module.accum_bits == [6, 6, 6]
    assert module.budgets == [10, 10, 10]
    assert module.max_widths == [None, None, None]


def test_the_budget_may_bound_magnitudes_in_every_layer():
    module = SparseQuantNeuralNetImpl(3, 2, 2, n_accum_bits=6, n_w_bits=4, budget="l1")
    assert module.max_widths == [63, 63, 65535]


def test_an_unknown_budget_is_refused():
    with pytest.raises(ValueError, match=r"""budget must be "omega" or "l1". Got 'l2'."""):
        SparseQuantNeuralNetImpl(3, 2, budget="l2")


@pytest.mark.parametrize("n_bits", [2, 3, 5, 8])
def test_projection_reaches_the_limit_by_small_steps_towards_zero(n_bits):
    torch.manual_seed(n_bits)
    layer = SparseQuantLinear(30, 8, n_bits, max_code=1, max_width=7)
    layer.calibrate(torch.randint(0, 2, (50, 30)).float())
    assert layer.widths().max() <= 7
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
    layer = SparseQuantLinear(3, 1, 3, max_code=1, max_width=4)
    with torch.no_grad():
        layer.quantized.fill_(True)
        layer.weight.copy_(torch.tensor([[2.2, -1.4, 0.4]]))
        layer.project()
    assert layer.weight.tolist() == [pytest.approx([2.2, -1.4, 0.4])]


def test_a_width_counts_the_largest_code_of_each_input():
    layer = SparseQuantLinear(3, 1, 3, max_code=3, max_width=9)
    with torch.no_grad():
        layer.quantized.fill_(True)
        layer.input_max.copy_(torch.tensor([3.0, 1.0, 0.0]))
        layer.weight.copy_(torch.tensor([[2.1, 3.0, 3.0]]))
        assert layer.widths().tolist() == [2 * 3 + 3 * 1 + 3 * 0]
        layer.project()
        assert layer.effective_weight().tolist() == [[2, 3, 3]]
        layer.max_width = 6
        layer.project()
    # 2.1 is nearer to the next level for each unit of width than 3.0 of the narrow input.
    assert layer.effective_weight().tolist() == [[1, 3, 3]]


@given(
    seed=st.integers(0, 2**16),
    n_bits=st.integers(2, 5),
    max_width=st.integers(1, 40),
    n_inputs=st.integers(1, 12),
)
def test_no_weights_exceed_a_limit_after_projection(seed, n_bits, max_width, n_inputs):
    generator = torch.Generator().manual_seed(seed)
    layer = SparseQuantLinear(n_inputs, 4, n_bits, max_code=3, max_width=max_width)
    with torch.no_grad():
        layer.quantized.fill_(True)
        layer.input_max.copy_(torch.randint(0, 4, (n_inputs,), generator=generator))
        layer.weight.copy_(5 * torch.randn(4, n_inputs, generator=generator))
        before = layer.effective_weight()
        layer.project()
    after = layer.effective_weight()
    assert (layer.widths() <= max_width).all()
    fitted = before.abs() @ layer.input_max <= max_width
    assert torch.equal(after[fitted], before[fitted])
    assert (after * before >= 0).all()


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
    assert [type(built.function) for built in module.activations] == [expected, expected]


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
    assert loaded.activations[0].function.negative_slope == 0.25


# ---------------------------------------------------------------------- layers


def test_keep_largest_masks_all_but_the_largest_magnitudes_of_each_neuron():
    layer = SparseQuantLinear(4, 2, 3, max_code=3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.1, -5.0, 2.0, 0.0], [3.0, 1.0, -1.5, 0.2]]))
    layer.keep_largest(2)
    assert layer.mask.tolist() == [[0, 1, 1, 0], [1, 0, 1, 0]]
    assert layer.effective_weight().tolist() == [[0, -5, 2, 0], [3, 0, -1.5, 0]]
    layer.keep_largest(99)
    assert layer.mask.sum() == 8


def test_largest_weights_are_kept_as_far_as_their_inputs_fit():
    layer = SparseQuantLinear(4, 1, 2, max_code=3, max_width=5)
    with torch.no_grad():
        layer.input_max.copy_(torch.tensor([3.0, 0.0, 1.0, 3.0]))
        layer.weight.copy_(torch.tensor([[0.5, 9.0, 0.4, 0.3]]))
    layer.keep_largest(4)
    assert layer.mask.tolist() == [[1, 0, 1, 0]]
    layer.keep_largest(1)
    assert layer.mask.tolist() == [[1, 0, 0, 0]]
    layer.keep_largest(1, progress=0.0)
    assert layer.mask.tolist() == [[1, 0, 1, 1]]


def test_substitute_input_keeps_the_function():
    torch.manual_seed(0)
    layer = SparseQuantLinear(5, 4, 3, max_code=3)
    layer.keep_largest(3)
    with torch.no_grad():
        x = torch.randn(50, 5)
        before = layer(x)
        offset, step = torch.randn(5), torch.rand(5) + 0.1
        layer.bias.add_(layer.substitute_input(offset, step))
        after = layer((x - offset) / step)
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    assert before.std() > 0.1


def test_calibrating_a_layer_keeps_its_mean_output_and_most_of_its_variance():
    torch.manual_seed(0)
    layer = SparseQuantLinear(20, 6, 3, max_code=3)
    codes = torch.randint(0, 4, (200, 20)).float()
    with torch.no_grad():
        before = layer(codes)
        layer.bias.add_(layer.calibrate(codes))
        after = layer(codes)
    torch.testing.assert_close(after.mean(dim=0), before.mean(dim=0), atol=1e-4, rtol=1e-4)
    assert (after - before).var(dim=0).sum() < 0.1 * before.var(dim=0).sum()


def test_a_layer_without_any_weight_calibrates_to_its_bias():
    layer = SparseQuantLinear(3, 2, 3, max_code=3, max_width=3)
    layer.mask.zero_()
    layer.calibrate(torch.ones(4, 3))
    with torch.no_grad():
        assert torch.equal(layer(torch.ones(1, 3))[0], layer.bias)


def test_a_network_must_learn_its_encoding_first():
    module = SparseQuantNeuralNetImpl(2, 1)
    for use in (module, module.calibrate):
        with pytest.raises(RuntimeError, match=r"Call fit_encoder\(X\) with the training data"):
            use(torch.zeros(1, 2))
    assert not any(encoder.quantized for encoder in module.encoders)


def test_a_float_module_is_linear_in_its_centred_codes():
    X = torch.arange(4.0, dtype=torch.float64)[:, None]
    module = SparseQuantNeuralNetImpl(1, 1, n_layers=1, n_codes_per_feature=1)
    module.fit_encoder(X)
    assert not module.quantized
    with torch.no_grad():
        module.linears[0].weight.fill_(0.3)
        module.linears[0].bias.fill_(0.5)
    standardized = (X - X.mean()) / X.std(unbiased=False)
    torch.testing.assert_close(outputs(module, X), (0.3 * standardized + 0.5).float())


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_calibration_at_8_bits_nearly_keeps_the_function(n_layers):
    torch.manual_seed(n_layers)
    X = torch.randn(400, 6, dtype=torch.float64) * 3 + 10
    module = SparseQuantNeuralNetImpl(
        6, 3, n_layers, n_w_bits=8, n_a_bits=8, n_accum_bits=16, n_hidden_neurons_multiplier=6.0
    )
    module.fit_encoder(X)
    before = outputs(module, X)
    module.calibrate(X, percentile=100.0)
    after = outputs(module, X)
    assert module.quantized
    assert (after - before).abs().max() < 0.1 * before.std()
    assert not torch.equal(after, before)


def test_calibration_at_2_bits_gives_ternary_weights_and_codes_up_to_3():
    module, X = random_module(0, n_layers=3)
    for linear in module.linears[:3]:
        assert linear.effective_weight().unique().tolist() == [-1, 0, 1]
    codes = module.encoders[0](torch.from_numpy(X))
    assert codes.unique().tolist() == [0, 1, 2, 3]


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
    module.fit_encoder(X)
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
        twin.linears[-1].log_gain.add_(1.0)
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
    twin.fit_encoder(X)
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
