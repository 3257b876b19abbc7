"""A quantized network, read through Brevitas's public API, is the program."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from brevitas.nn import QuantIdentity, QuantLinear
from cases import random_module
from sklearn.datasets import load_digits
from torch.nn.functional import linear as linear_map

from cipherlearn import NeuralNetClassifier
from cipherlearn.lowering import _lower
from cipherlearn.nn._activations import ActivationQuantizer
from cipherlearn.nn._layers import SparseQuantLinear


def integers(tensor):
    """Integers of a QuantTensor that says that it holds nothing else."""
    assert (tensor.scale == 1).all()
    assert (tensor.zero_point == 0).all()
    assert torch.equal(tensor.value, tensor.int().to(torch.float32))
    return tensor.int().to(torch.int64).numpy()


def brevitas_layers(module, kind):
    return [layer for layer in module.modules() if isinstance(layer, kind)]


def codes_seen(module, rows):
    """QuantTensors that the activation quantizers give for rows, and the outputs."""
    seen, quantizers = [], brevitas_layers(module, QuantIdentity)
    hooks = [q.register_forward_hook(lambda *call: seen.append(call[-1])) for q in quantizers]
    for quantizer in quantizers:
        quantizer.return_quant_tensor = True
    with torch.no_grad():
        outputs = module(rows)
    for quantizer, hook in zip(quantizers, hooks, strict=True):
        quantizer.return_quant_tensor = False
        hook.remove()
    return seen, outputs


@pytest.fixture
def whole_program(monkeypatch):
    """Lower a module without leaving out what cannot change an output."""
    monkeypatch.setattr(_lower, "simplify", lambda program: program)
    return _lower.lower


# ---------------------------------------------------------------------- the network


@pytest.mark.parametrize("n_w_bits", range(2, 9))
@pytest.mark.parametrize("n_a_bits", range(1, 9))
def test_brevitas_alone_gives_the_integers_of_every_layer(whole_program, n_w_bits, n_a_bits):
    rounds = (n_w_bits + n_a_bits) % 2 == 0
    module, X = random_module(
        10 * n_w_bits + n_a_bits,
        n_layers=3,
        n_hidden_neurons=[6, 4],
        n_w_bits=n_w_bits,
        n_a_bits=n_a_bits,
        n_accum_bits=16,
        n_hidden_accum_bits=n_a_bits + 5 if rounds else None,
        rounding_bits=3 if rounds else None,
    )
    program = whole_program(module)
    codes_of_layers, outputs = codes_seen(module, torch.from_numpy(X))
    assert len(codes_of_layers) == 2
    expected, wide = program.split(program.quantize(X))
    inputs = torch.from_numpy(expected).to(torch.float32)
    layers = brevitas_layers(module, QuantLinear)
    for i, (brevitas, layer) in enumerate(zip(layers, program.layers, strict=True)):
        weights = brevitas.quant_weight()
        is_wide = brevitas is layers[3]
        if is_wide:
            inputs, expected = torch.from_numpy(wide).to(torch.float32), wide
        assert (weights.bit_width.item(), weights.signed) == (8 if is_wide else n_w_bits, True)
        np.testing.assert_array_equal(integers(weights), layer.weights)
        # Of two QuantTensors Brevitas makes a third. The first inputs are none.
        sums = linear_map(inputs, weights)
        sums = sums.detach().numpy() if is_wide or i == 0 else integers(sums)
        np.testing.assert_array_equal(sums, expected @ layer.weights.T)
        if layer.tables is None:
            continue
        inputs, expected = codes_of_layers[i], layer(expected)
        assert (inputs.bit_width.item(), inputs.signed) == (n_a_bits, False)
        np.testing.assert_array_equal(integers(inputs), expected)
    np.testing.assert_array_equal(outputs.numpy(), program(X))


@pytest.fixture(scope="module")
def fitted():
    X, y = load_digits(return_X_y=True)
    clf = NeuralNetClassifier(module__n_hidden_neurons=12, max_epochs=3, random_state=0)
    return clf.fit(X[:400], y[:400]), X[:400], y[:400]


@pytest.mark.parametrize(
    "change",
    [
        lambda clf, X, y: clf,
        lambda clf, X, y: copy.deepcopy(clf).partial_fit(X, y),
        lambda clf, X, y: clf.prune(X, y, 0.3),
        lambda clf, X, y: pickle.loads(pickle.dumps(clf)),
    ],
    ids=["fit", "partial_fit", "prune", "pickle"],
)
def test_brevitas_shows_no_more_weights_than_the_budget_allows(fitted, change):
    module = change(*fitted).module_
    n_pruned = 0
    for layer, budget in zip(brevitas_layers(module, QuantLinear), module.budgets, strict=True):
        for weights in (layer.quant_weight(), layer.weight_quant(layer.weight)):
            kept = integers(weights) != 0
            assert (kept.sum(axis=1) <= budget).all()
            assert not kept[layer.mask.numpy() == 0].any()
        pruned = layer.weight[layer.mask == 0].detach()
        n_pruned += int(pruned.round().count_nonzero())
    # Weights that were pruned keep their last value in the parameter.
    assert n_pruned > 0


# ---------------------------------------------------------------------- the layers


@pytest.mark.parametrize("n_bits", range(2, 9))
def test_quantized_weights_are_those_of_brevitas(n_bits):
    torch.manual_seed(n_bits)
    layer = SparseQuantLinear(20, 6, n_bits, max_code=3)
    layer.keep_largest(15)
    codes = torch.randint(0, 4, (100, 20)).float()
    layer.calibrate(codes)
    with torch.no_grad():
        effective, quantized = layer.effective_weight(), layer.quant_weight()
        in_training = layer(codes)
        assert torch.equal(QuantLinear.forward(layer, codes), in_training)
        assert torch.equal(layer.eval()(codes), in_training)
    np.testing.assert_array_equal(integers(quantized), effective.numpy())
    assert layer.weight_quant.scale() == 1
    # Calibration leaves few levels unused.
    assert effective.abs().max() > 0.75 * (2 ** (n_bits - 1) - 1)
    assert (effective.count_nonzero(dim=1) <= 15).all()


@pytest.mark.parametrize("n_bits", range(1, 9))
def test_codes_in_training_are_those_of_brevitas(n_bits):
    quantizer = ActivationQuantizer(3, n_bits)
    quantizer.calibrate(torch.tensor([-1.0, 0.0, 10.0]), torch.tensor([2.0, 1e-3, 50.0]))
    generator = torch.Generator().manual_seed(n_bits)
    x = torch.randn(500, 3, generator=generator) * torch.tensor([3.0, 1e-3, 40.0])
    with torch.no_grad():
        codes = quantizer(x)
        assert torch.equal(quantizer.eval()(x), codes)
        brevitas = QuantIdentity.forward(quantizer, (x - quantizer.offset) / quantizer.step)
    assert torch.equal(codes, brevitas)
    assert codes.min() == 0
    assert codes.max() == 2**n_bits - 1
    assert (quantizer.act_quant.scale(), quantizer.act_quant.zero_point()) == (1, 0)


def test_halves_round_as_in_brevitas():
    quantizer = ActivationQuantizer(1, 3)
    quantizer.calibrate(torch.tensor([0.0]), torch.tensor([7.0]))
    with torch.no_grad():
        quantizer.log_step.zero_()
        x = torch.arange(-2, 18)[:, None] / 2
        codes = quantizer(x)
        assert torch.equal(codes, QuantIdentity.forward(quantizer, x))
    assert codes[:8].ravel().tolist() == [0, 0, 0, 0, 1, 2, 2, 2]


# ---------------------------------------------------------------------- export


# torch's exporters and Brevitas's module for them give many warnings.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"n_a_bits": 1},
        {"n_w_bits": 4, "n_a_bits": 3},
        {"n_hidden_accum_bits": 6, "rounding_bits": 4},
    ],
    ids=["1-bit codes", "wide", "rounded"],
)
def test_the_exported_network_is_the_program(whole_program, options, dynamo):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxoptimizer")
    if dynamo:
        pytest.importorskip("onnxscript")
    from brevitas.export import export_qonnx
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    given = []

    class Quant(OpRun):
        op_domain = "qonnx.custom_op.general"

        def _run(self, x, scale, zero_point, n_bits, narrow=0, rounding_mode="", signed=0):
            assert (scale, zero_point, rounding_mode) == (1, 0, "ROUND")
            largest = 2 ** (n_bits - signed) - 1
            smallest = -(largest + 1 - narrow) if signed else 0
            given.append(np.clip(np.round(x), smallest, largest))
            return (given[-1],)

    module, X = random_module(3, n_layers=3, n_hidden_neurons=[6, 4], **options)
    program = whole_program(module)
    graph = export_qonnx(module, args=(torch.from_numpy(X),), dynamo=dynamo, verbose=False)
    evaluator = ReferenceEvaluator(graph, new_ops=[Quant])
    (outputs,) = evaluator.run(None, {graph.graph.input[0].name: X})
    np.testing.assert_allclose(outputs, program(X), rtol=1e-5, atol=1e-6)
    expected = [layer.weights for layer in program.layers]
    if options.get("n_a_bits") != 1:
        codes, _ = program.split(program.quantize(X))
        expected += [codes := layer(codes) for layer in program.hidden_layers]
    assert sorted(a.tolist() for a in given) == sorted(a.tolist() for a in expected)
