"""Integers of lowered modules = Brevitas's own, at every layer."""

from __future__ import annotations

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from brevitas.quant import Int16Bias
from cases import needs_engine
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from networks import Chain, brevitas_codes, program_codes, relu, signed, trained, weights
from torch import nn

from cipherlearn import AccumulatorOverflowError, Circuit, lower
from cipherlearn.lowering._foreign import lower_traced

# Brevitas says so of layers with zero points.
pytestmark = pytest.mark.filterwarnings("ignore:Computing zero point of output accumulator")

QUICK = settings(max_examples=16, deadline=None, phases=[Phase.generate])


def assert_same_integers(module, X, is_exact):
    """Compare every quantizer on every row, or on those that float rounding cannot decide."""
    lowered = lower_traced(module, X.shape[1])
    expected, far, outputs = brevitas_codes(module, X)
    made = program_codes(lowered, X.numpy())
    rows = np.ones(len(X), dtype=bool) if is_exact else far
    assert rows.mean() > 0.3
    assert made.keys() == expected.keys()
    for name, codes in expected.items():
        np.testing.assert_array_equal(made[name][rows], codes[rows], err_msg=name)
    for program in (lowered.program, lower(module, X)):
        results = program(X.numpy())
        if is_exact:
            np.testing.assert_array_equal(results, outputs)
        else:
            np.testing.assert_allclose(results[rows], outputs[rows], rtol=1e-5, atol=1e-5)


@st.composite
def chains(draw):
    """A module of random layers, the number of its features, and whether its scales are exact."""
    fixed = draw(st.booleans())
    shape = draw(st.sampled_from([(6,), (1, 7), (2, 5), (1, 4, 5), (2, 4, 4)]))
    n_features = int(np.prod(shape))
    torch.manual_seed(draw(st.integers(0, 1000)))
    layers = [signed(fixed, draw(st.integers(2, 5)), shifted=not fixed and draw(st.booleans()))]
    size = list(shape)
    for _ in range(draw(st.integers(1, 3))):
        layers += draw(blocks(size, fixed))
    layers.append(nn.Flatten())
    bias = draw(st.booleans()) and not fixed
    layers.append(qnn.QuantLinear(int(np.prod(size)), 2, bias=bias, **weights(fixed)))
    return Chain(shape, layers), n_features, fixed


@st.composite
def blocks(draw, size, fixed):
    """A layer with weights, or a pool, and a quantizer. The shape is updated."""
    kind = draw(st.sampled_from(["weights", "weights", "max", "average"]))
    n = len(size) - 1
    if kind == "max" and n and min(size[1:]) > 1:
        size[1:] = [s // 2 for s in size[1:]]
        return [(nn.MaxPool1d, nn.MaxPool2d)[n - 1](2)]
    if kind == "average" and n and min(size[1:]) > 1:
        size[1:] = [s // 2 for s in size[1:]]
        return [(nn.AvgPool1d, nn.AvgPool2d)[n - 1](2), signed(fixed)]
    bits = {**weights(fixed, draw(st.integers(2, 4)), per_channel=draw(st.booleans()))}
    bias = {"bias": draw(st.booleans())}
    if fixed:
        bias["bias_quant"] = Int16Bias
    if n:
        groups = size[0] if draw(st.booleans()) else 1
        n_filters = draw(st.sampled_from([2, 4]))
        padding, dilation = draw(st.integers(0, 2)), draw(st.integers(1, 2))
        stride, kernel = draw(st.integers(1, 2)), draw(st.integers(1, 2))
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        layer = (qnn.QuantConv1d, qnn.QuantConv2d)[n - 1](
            size[0], n_filters, kernel, **options, **bits, **bias
        )
        span = dilation * (kernel - 1) + 1
        size[:] = [n_filters, *((s + 2 * padding - span) // stride + 1 for s in size[1:])]
    else:
        layer = qnn.QuantLinear(size[0], 4, **bits, **bias)
        size[:] = [4]
    normalize = draw(st.booleans()) and not fixed
    normalization = [nn.BatchNorm2d(size[0]) if n == 2 else nn.BatchNorm1d(size[0])]
    activations = [relu(fixed), signed(fixed)]
    if not fixed:
        activations.append(nn.Sequential(nn.Tanh(), signed(fixed)))
        activations.append(qnn.QuantSigmoid(bit_width=3, return_quant_tensor=True))
    return [layer, *(normalization if normalize else []), draw(st.sampled_from(activations))]


@QUICK
@given(chains())
def test_every_quantizer_has_brevitas_integers(chain):
    module, n_features, fixed = chain
    module, X = trained(module, n_features, seed=1)
    assert_same_integers(module, X, is_exact=fixed)


class Branches(nn.Module):
    """A residual addition, a concatenation, a global average, and two paths to the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = signed(fixed=False)
        self.conv = qnn.QuantConv2d(1, 3, 3, padding=1, bias=False, **weights(False))
        self.same = signed(fixed=False)
        self.mixed = relu(fixed=False)
        self.both = qnn.QuantEltwiseAdd(return_quant_tensor=True, input_bit_width=3)
        self.pooled = signed(fixed=False)
        self.norm = nn.BatchNorm1d(6)
        self.last = qnn.QuantLinear(6, 2, bias=True, **weights(False))
        self.wide = qnn.QuantLinear(16, 2, bias=False, **weights(False, 6))
        self.factor = nn.Parameter(torch.tensor([[[0.5]], [[-0.25]], [[1.0]]]))

    def forward(self, X, sample_weight=None):
        x = self.first(X.reshape(X.shape[0], 1, 4, -1) if sample_weight is None else sample_weight)
        y = self.same(self.conv(x))
        y = self.mixed(torch.relu(y + y) * self.factor)
        z = torch.cat([y, self.mixed(torch.sigmoid(self.conv(x)) - 0.25)], dim=1)
        z = self.both(z, torch.relu(z - 0.25))
        z = self.pooled(z.value.permute(0, 2, 3, 1).mean(dim=(1, 2)))
        return self.last(z) + self.wide(torch.flatten(x, 1))


def test_branches_have_brevitas_integers():
    torch.manual_seed(0)
    module, X = trained(Branches(), 16, seed=0)
    lowered = lower_traced(module, 16)
    # ``mixed`` is called twice: the last call is what both remember.
    expected, far, outputs = brevitas_codes(module, X)
    made = program_codes(lowered, X.numpy())
    assert made.keys() == expected.keys()
    for name, codes in made.items():
        np.testing.assert_array_equal(codes[far], expected[name][far], err_msg=name)
    results = lowered.program(X.numpy())
    np.testing.assert_allclose(results[far], outputs[far], atol=1e-5)
    assert far.mean() > 0.5
    # The two paths are decrypted apart, and added in the clear.
    assert len(lowered.program.outputs) == 2


@pytest.mark.parametrize(
    ("bits", "n_bootstraps"), [(1, 4), (3, 3 * 4), (4, 3 * 4)], ids=["1-bit", "packed", "wide"]
)
def test_max_pooling_takes_the_bootstraps_that_are_documented(bits, n_bootstraps):
    torch.manual_seed(1)
    layers = [relu(True, bits), nn.MaxPool2d(2), nn.Flatten()]
    layers.append(qnn.QuantLinear(4, 2, bias=False, **weights(True)))
    module, X = trained(Chain((1, 4, 4), layers), 16, seed=2)
    assert_same_integers(module, X, is_exact=True)
    assert lower(module, X).n_bootstraps == n_bootstraps


REFUSED = [
    (nn.Linear(4, 2), "layers.1 is a torch.nn.modules.linear.Linear. Use QuantLinear"),
    (nn.LayerNorm(4), "layers.1 is .*LayerNorm. Its statistics .* Use torch.nn.BatchNorm1d"),
    (nn.Softmax(dim=1), "layers.1 .* Leave it out"),
    (nn.LSTM(4, 2), "layers.1 is .*LSTM. Use QuantLinear"),
    (qnn.QuantLinear(4, 2, bias=False, weight_quant=None), "Those of layers.1 are float. Give"),
    (nn.Sequential(nn.Tanh(), qnn.QuantLinear(4, 2, bias=False)), "layers.1.1 .* Put a Quant"),
    (nn.Sequential(nn.Tanh()), "the output .* Put a Quant"),
    (qnn.QuantLinear(3, 2, bias=False), r"layers.1 reads \(4,\) for each row"),
]


@pytest.mark.parametrize(("layer", "message"), REFUSED, ids=lambda v: type(v).__name__)
def test_what_has_no_integer_form_is_named_with_a_remedy(layer, message):
    module = Chain((4,), [signed(True), layer]).eval()
    with pytest.raises(ValueError, match=message):
        lower_traced(module, 4)


def test_features_that_are_not_quantized_first_are_refused():
    with pytest.raises(ValueError, match=r"They reach layers\.0 as they are\. Begin with"):
        lower_traced(Chain((4,), [qnn.QuantLinear(4, 2, bias=False)]).eval(), 4)


class Python(nn.Module):
    def forward(self, X):
        return X if X.sum() > 0 else -X


class Softened(nn.Module):
    def forward(self, X):
        return torch.softmax(X, 1)


def test_forwards_that_cannot_be_traced_are_refused():
    with pytest.raises(ValueError, match=r"which torch\.fx can trace .* That of Python is not"):
        lower(Python(), np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"calls softmax .* Leave it out"):
        lower(Softened(), np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"Call lower\(module, X\)"):
        lower(Softened())


def test_a_module_that_computes_otherwise_than_traced_is_refused():
    calls = []

    class Moody(Chain):
        def forward(self, X):
            calls.append(1)
            return super().forward(X) * float(len(calls))

    layers = [signed(True), qnn.QuantLinear(4, 2, bias=False, **weights(True))]
    module, X = trained(Moody((4,), layers), 4, seed=0)
    calls.clear()
    with pytest.raises(ValueError, match="differ by more than"):
        lower(module, X)


def test_an_accumulator_that_is_too_wide_names_its_channel_and_a_remedy():
    torch.manual_seed(0)
    layers = [signed(True, 8), qnn.QuantConv1d(1, 2, 9, **weights(False, 8)), relu(True)]
    module, X = trained(Chain((1, 12), layers), 12, seed=0)
    message = r"Channel \d of layer layers\.1 sums 9 products .* by 1 together, or prune .* to 2"
    with pytest.raises(AccumulatorOverflowError, match=message):
        lower(module, X)


@QUICK
@given(
    st.lists(st.floats(width=64, allow_nan=False), min_size=20, max_size=20),
    st.integers(0, 100),
    st.booleans(),
)
def test_clients_encode_every_float_as_the_module_does(floats, seed, shifted):
    torch.manual_seed(seed)
    layers = [nn.BatchNorm1d(1), signed(False, 4, shifted)]
    module, _ = trained(Chain((1,), layers), 1, seed)
    lowered = lower_traced(module, 1)
    # Where a code begins, the number before it, and what is between both and float64 can tell.
    thresholds = lowered.program.quantizer.thresholds[0]
    near = [np.nextafter(thresholds, end) for end in (-np.inf, np.inf)]
    rows = np.concatenate([floats, thresholds, *near, np.float32(thresholds)])[:, None]
    with np.errstate(over="ignore"):
        seen = torch.from_numpy(rows.astype(np.float32))
    expected = module(seen).int() - module(seen).zero_point
    made = lowered.program.quantize(rows) + lowered.codes["layers.1"][1]
    np.testing.assert_array_equal(made, expected.detach().numpy())


def test_codes_that_do_not_ascend_are_refused():
    class Magnitudes(Chain):
        def forward(self, X):
            return super().forward(X.abs())

    with pytest.raises(ValueError, match=r"must ascend .* Those of layers\.0 do not"):
        lower_traced(Magnitudes((2,), [signed(True)]).eval(), 2)


CASES = {
    "linear": ((2,), [qnn.QuantLinear, 2, 2], []),
    "convolution": ((1, 3), [qnn.QuantConv1d, 1, 1, 2], [nn.MaxPool1d(2), nn.Flatten()]),
}


@needs_engine
@pytest.mark.parametrize("name", CASES)
def test_ciphertexts_give_the_clear_result(name):
    shape, (kind, *sizes), behind = CASES[name]
    torch.manual_seed(0)
    n = sizes[1] if behind else 2
    hidden = kind(*sizes, **weights(False, 2))
    layers = [signed(False, 2), hidden, nn.Tanh(), signed(False, 2), *behind]
    layers.append(qnn.QuantLinear(n, 2, bias=True, **weights(False, 2)))
    module, X = trained(Chain(shape, layers), int(np.prod(shape)), seed=0)
    program = lower(module, X)
    assert program.n_bootstraps
    circuit = Circuit(program, [16] * len(program.layers))
    codes = program.quantize(X[:10].numpy())
    clear = program.run(codes)
    np.testing.assert_array_equal(circuit.simulate(codes), clear)
    np.testing.assert_array_equal(circuit.execute(codes), clear)
