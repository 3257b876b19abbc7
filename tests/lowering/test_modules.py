"""Integers of lowered modules = Brevitas's own, at every layer."""

from __future__ import annotations

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from brevitas.quant import Int16Bias
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from networks import Chain, brevitas_codes, program_codes, relu, signed, trained, weights
from torch import nn

from cipherlearn import lower
from cipherlearn.lowering._foreign import lower_traced

# Brevitas says so of layers with zero points.
pytestmark = pytest.mark.filterwarnings("ignore:Computing zero point of output accumulator")

QUICK = settings(max_examples=25, deadline=None, phases=[Phase.generate])


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
