"""Training keeps the budget of every neuron of every layer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from cases import THREE_WEIGHTS
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from skorch.callbacks import Callback

from cipherlearn import NeuralNetClassifier, NeuralNetRegressor, max_active_neurons


def random_fit(n_features, n_classes, seed, **parameters):
    X = np.random.default_rng(seed).normal(size=(12, n_features))
    y = np.arange(12) % n_classes
    return NeuralNetClassifier(random_state=seed, **parameters).fit(X, y)


def counts_per_neuron(clf):
    """Non-zero integer weights of every neuron, by layer, from Brevitas and the program."""
    with torch.no_grad():
        module = [
            linear.quant_weight().int().count_nonzero(dim=1).numpy()
            for linear in clf.module_.linears
        ]
    for counts, layer in zip(module, clf.program_.layers, strict=True):
        # The program lacks neurons and inputs that change nothing.
        assert np.count_nonzero(layer.weights, axis=1).max() <= counts.max()
    return module


@settings(max_examples=40)
@given(
    n_features=st.integers(1, 40),
    hidden=st.lists(st.integers(1, 12), max_size=3),
    n_classes=st.integers(2, 4),
    n_w_bits=st.integers(2, 8),
    n_a_bits=st.integers(1, 8),
    n_accum_bits=st.integers(1, 16),
    multiplier=st.sampled_from([0.5, 1.0, 1.7, 3.0]),
    max_epochs=st.integers(1, 3),
    wide_path=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_every_neuron_of_every_layer_keeps_its_budget(
    n_features,
    hidden,
    n_classes,
    n_w_bits,
    n_a_bits,
    n_accum_bits,
    multiplier,
    max_epochs,
    wide_path,
    seed,
):
    budget = math.floor(multiplier * max_active_neurons(n_accum_bits, n_w_bits, n_a_bits))
    assume(budget >= 1)
    clf = random_fit(
        n_features,
        n_classes,
        seed,
        module__n_layers=len(hidden) + 1,
        module__n_hidden_neurons=hidden,
        module__n_w_bits=n_w_bits,
        module__n_a_bits=n_a_bits,
        module__n_accum_bits=n_accum_bits,
        module__n_hidden_accum_bits=None,
        module__n_output_accum_bits=None,
        module__n_hidden_neurons_multiplier=multiplier,
        module__wide_path=wide_path,
        max_epochs=max_epochs,
    )
    # The wide path has a weight for every code. Nothing looks its sums up.
    n_layers = 0 if wide_path and not hidden else len(hidden) + 1
    assert len(clf.program_.layers) == n_layers + wide_path
    assert clf.module_.budgets[:n_layers] == [budget] * n_layers
    counts_of = counts_per_neuron(clf)[:n_layers]
    for counts, layer in zip(counts_of, clf.program_.layers, strict=False):
        assert (counts <= budget).all()
        if multiplier <= 1:
            assert layer.n_accum_bits <= n_accum_bits


@settings(max_examples=25)
@given(
    n_features=st.integers(1, 40),
    hidden=st.lists(st.integers(1, 12), min_size=1, max_size=2),
    n_w_bits=st.integers(2, 8),
    n_a_bits=st.integers(1, 4),
    n_hidden_accum_bits=st.integers(1, 8),
    max_epochs=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_narrow_hidden_accumulators_are_guaranteed_by_training(
    n_features, hidden, n_w_bits, n_a_bits, n_hidden_accum_bits, max_epochs, seed
):
    assume(n_hidden_accum_bits >= n_a_bits)
    clf = random_fit(
        n_features,
        2,
        seed,
        module__n_layers=len(hidden) + 1,
        module__n_hidden_neurons=hidden,
        module__n_w_bits=n_w_bits,
        module__n_a_bits=n_a_bits,
        module__n_accum_bits=16,
        module__n_hidden_accum_bits=n_hidden_accum_bits,
        module__n_output_accum_bits=None,
        module__n_hidden_neurons_multiplier=1.0,
        max_epochs=max_epochs,
    )
    *narrow, last, wide = clf.program_.layers
    budget = max_active_neurons(16, n_w_bits, n_a_bits)
    for layer in narrow:
        assert (np.abs(layer.weights) @ layer.input_high).max() < 2**n_hidden_accum_bits
        assert layer.n_accum_bits <= n_hidden_accum_bits
    assert last.n_accum_bits <= 16
    assert wide.n_accum_bits <= 16
    for counts in counts_per_neuron(clf)[:-1]:
        assert (counts <= budget).all()


@settings(max_examples=25)
@given(
    n_features=st.integers(1, 40),
    n_layers=st.integers(1, 3),
    n_w_bits=st.integers(2, 8),
    n_a_bits=st.integers(1, 4),
    n_accum_bits=st.integers(1, 10),
    max_epochs=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_a_budget_of_magnitudes_guarantees_every_accumulator(
    n_features, n_layers, n_w_bits, n_a_bits, n_accum_bits, max_epochs, seed
):
    assume(n_accum_bits >= n_a_bits)
    clf = random_fit(
        n_features,
        3,
        seed,
        module__budget="l1",
        module__n_layers=n_layers,
        module__n_hidden_neurons=6,
        module__n_w_bits=n_w_bits,
        module__n_a_bits=n_a_bits,
        module__n_accum_bits=n_accum_bits,
        module__n_hidden_accum_bits=None,
        module__n_output_accum_bits=None,
        module__wide_path=False,
        max_epochs=max_epochs,
    )
    for layer in clf.program_.layers:
        assert (np.abs(layer.weights) @ layer.input_high).max() < 2**n_accum_bits
        assert layer.n_accum_bits <= n_accum_bits


@pytest.mark.parametrize(("n_features", "kept"), [(2, 2), (3, 3), (4, 3), (60, 3)])
def test_a_wide_neuron_uses_its_whole_budget(n_features, kept):
    clf = random_fit(
        n_features,
        2,
        seed=0,
        module__n_w_bits=2,
        module__n_a_bits=2,
        module__n_accum_bits=4,
        module__n_hidden_accum_bits=None,
        module__n_hidden_neurons=9,
        module__n_hidden_neurons_multiplier=3.0,
        module__n_codes_per_feature=1,
        module__n_components=0,
        max_epochs=5,
    )
    assert clf.module_.budgets == [3, 3, n_features]
    assert (clf.module_.linears[0].mask.sum(dim=1) == kept).all()
    assert (clf.module_.linears[1].mask.sum(dim=1) == 3).all()


def test_the_regressor_keeps_its_budget():
    X = np.random.default_rng(0).normal(size=(30, 20))
    reg = NeuralNetRegressor(max_epochs=3, random_state=0, **THREE_WEIGHTS).fit(X, X[:, :2])
    hidden, last = counts_per_neuron(reg)
    assert (len(hidden), len(last)) == (24, 2)
    assert hidden.max() == 3
    assert last.max() <= 3


def test_further_fits_keep_the_budget():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 20)), np.arange(30) % 2
    clf = NeuralNetClassifier(max_epochs=2, random_state=0, **THREE_WEIGHTS).fit(X, y)
    for _ in range(3):
        clf.partial_fit(rng.normal(size=(30, 20)), y)
        assert counts_per_neuron(clf)[0].max() == 3


class Unprune(Callback):
    """Undo the pruning, as a callback of the user's might."""

    def on_epoch_end(self, net, **kwargs):
        net.module_.linears[0].mask.fill_(1.0)


def test_a_neuron_over_its_budget_is_an_error_that_names_it():
    X, y = np.random.default_rng(0).normal(size=(30, 20)), np.arange(30) % 2
    clf = NeuralNetClassifier(max_epochs=5, callbacks=[Unprune()], random_state=0, **THREE_WEIGHTS)
    with pytest.raises(RuntimeError, match=r"of layer 0 has \d+ non-zero weights") as error:
        clf.fit(X, y)
    assert error.match("more than its budget of 3")
    assert error.match("Some callback undid the pruning")
    assert not hasattr(clf, "program_")


def test_pruning_can_be_disabled():
    X, y = np.random.default_rng(0).normal(size=(30, 20)), np.arange(30) % 2
    clf = NeuralNetClassifier(
        max_epochs=5, module__pruning=False, random_state=0, **THREE_WEIGHTS
    ).fit(X, y)
    assert (clf.module_.linears[0].mask == 1).all()
    assert counts_per_neuron(clf)[0].max() > 3
