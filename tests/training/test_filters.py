"""Budgets of neurons and filters in modules that users wrote."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from brevitas.nn import QuantConv2d, QuantIdentity, QuantLinear, QuantReLU
from torch import nn
from torch.nn.utils import prune

from cipherlearn import NeuralNetClassifier, lower
from cipherlearn.nn._budget import max_active_neurons
from cipherlearn.nn._filters import filter_budgets, quantized_layers
from cipherlearn.training._callbacks import PruningCallback


class Images(nn.Module):
    def __init__(self, n_outputs=2, w_bits=3):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Unflatten(1, (1, 6, 6)),
            QuantIdentity(bit_width=2, return_quant_tensor=True),
            QuantConv2d(1, 4, 3, bias=True, weight_bit_width=w_bits),
            QuantReLU(bit_width=2, return_quant_tensor=True),
            nn.MaxPool2d(2),
            QuantConv2d(4, 3, 2, bias=True, weight_bit_width=w_bits),
            QuantReLU(bit_width=1, return_quant_tensor=True),
            nn.Flatten(),
            QuantLinear(3, n_outputs, bias=True, weight_bit_width=w_bits),
        )

    def forward(self, X):
        return self.layers(X)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    X = rng.normal(size=(80, 6, 6))
    X[y == 1, 1:4, 1:4] += 1.5
    return X.reshape(80, 36), y


def net(**options):
    options = {"max_epochs": 5, "lr": 0.02, "random_state": 0, **options}
    return NeuralNetClassifier(module=Images, **options)


def counts(module):
    """Non-zero integer weights of every neuron and filter, by layer."""
    layers = quantized_layers(module.eval())
    return {
        n: (layer.quant_weight().value != 0).flatten(1).sum(dim=1) for n, layer in layers.items()
    }


def test_every_filter_and_neuron_keeps_its_budget(images):
    clf = net(callbacks__pruning__n_accum_bits=6).fit(*images)
    omega = [max_active_neurons(6, 3, n_bits) for n_bits in (2, 2, 1)]
    assert list(filter_budgets(clf.module_, 6).values()) == omega == [3, 3, 9]
    for (name, found), budget in zip(counts(clf.module_).items(), omega, strict=True):
        assert found.max() <= budget, name
    # More than one epoch's worth was there before.
    free = net().fit(*images)
    assert max(found.max() for found in counts(free.module_).values()) > 3
    # As Ω promises, of any input.
    assert max(layer.n_accum_bits for layer in clf.program_.layers) <= 6
    clf.partial_fit(*images)
    assert all(
        found.max() <= b for found, b in zip(counts(clf.module_).values(), omega, strict=True)
    )


def test_the_sparsity_grows_along_the_schedule(images):
    seen = []

    class Watch(PruningCallback):
        def on_epoch_begin(self, net, **kwargs):
            super().on_epoch_begin(net, **kwargs)
            weight = net.module_.layers[5].weight
            seen.append(int((weight != 0).flatten(1).sum(dim=1).max()))

    net(callbacks__pruning=Watch(n_accum_bits=6), max_epochs=10).fit(*images)
    assert seen == sorted(seen, reverse=True)
    assert seen[0] == 16
    assert seen[-2:] == [3, 3]


def test_weights_without_a_zero_cannot_be_pruned(images):
    with pytest.raises((RuntimeError, ValueError), match="weight"):
        net(module__w_bits=1, callbacks__pruning__n_accum_bits=3).fit(*images)


def test_masks_of_torch_are_lowered():
    torch.manual_seed(0)
    module, X = Images(), torch.randn(30, 36)
    prune.random_unstructured(module.layers[5], "weight", 0.5)
    module(X)
    found = counts(module)["layers.5"]
    assert found.max() <= 16
    program = lower(module.eval(), X)
    expected = module(X).detach().numpy()
    np.testing.assert_allclose(np.median(abs(program(X) - expected)), 0, atol=1e-5)
    assert program.layers[-2].n_weights <= found.sum()


def test_prune_removes_filters_and_their_bootstraps(images):
    clf = net(max_epochs=20).fit(*images)
    before = clf.program_.n_bootstraps
    smaller = clf.prune(*images, n_prune_neurons_percentage=0.5)
    # One of 3 filters of one pixel and 2 of 4 are left out: of 16 pixels, pooled to 4, each.
    assert smaller.program_.n_bootstraps < 0.7 * before
    assert clf.program_.n_bootstraps == before
    assert smaller.score(*images) > 0.7
    # Besides those that change nothing.
    gone = smaller.removed_neurons_
    assert 2 <= len(gone["layers.2"]) < 4
    assert 1 <= len(gone["layers.5"]) < 3
    again = smaller.partial_fit(*images)
    assert again.program_.n_bootstraps < 0.7 * before
    assert not hasattr(again.fit(*images), "removed_neurons_")
