"""The training schedule: phases, learning rates, stopping early and weight decay."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cases import NO_TEACHER, THREE_WEIGHTS, blobs
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from skorch.dataset import ValidSplit

from cipherlearn import NeuralNetClassifier, NeuralNetRegressor, SparseQuantNeuralNetImpl
from cipherlearn.training._callbacks import WeightDecay, prune
from cipherlearn.training._schedule import Phase


class Recorder(Callback):
    """Note the state of training in every epoch."""

    def __init__(self):
        self.warmup, self.quantized, self.lr, self.kept, self.teacher = [], [], [], [], []

    def on_batch_begin(self, net, training=None, **kwargs):
        if len(net.history[-1]["batches"]) > 1:
            return
        self.warmup.append(net.phase_.is_warmup)
        self.quantized.append(net.module_.quantized)
        self.lr.append(net.optimizer_.param_groups[0]["lr"])
        self.kept.append([int(layer.mask.sum(dim=1).max()) for layer in net.module_.linears])
        self.teacher.append(net._schedule.teacher is not None)


def recorded_fit(X, y, **parameters):
    recorder = Recorder()
    clf = NeuralNetClassifier(
        random_state=0, callbacks=[recorder], module__n_hidden_neurons=4, **parameters
    )
    return clf.fit(X, y), recorder


# ---------------------------------------------------------------------- the schedule


def test_without_the_pruning_callback_the_budget_holds_from_the_fine_tuning_on():
    X, y = np.random.default_rng(0).normal(size=(30, 20)), np.arange(30) % 2
    clf, recorder = recorded_fit(X, y, max_epochs=5, callbacks__pruning=None, **THREE_WEIGHTS)
    assert recorder.kept == [[20, 4]] * 2 + [[3, 3]] * 3
    assert clf.module_.linears[0].quant_weight().int().count_nonzero(dim=1).max() <= 3


def test_sparsity_grows_monotonically_to_the_budget():
    module = SparseQuantNeuralNetImpl(
        100, 2, n_hidden_neurons=5, n_accum_bits=8, n_codes_per_feature=1
    )
    kept = []
    for progress in np.linspace(0, 1, 51):
        prune(module, progress)
        counts = module.linears[0].mask.sum(dim=1)
        assert (counts == counts[0]).all()
        kept.append(int(counts[0]))
    assert kept[0] == 100
    assert kept[25] == 28 + 9  # 72 * 0.5**3
    assert kept[-1] == 28
    assert kept == sorted(kept, reverse=True)


def test_a_layer_within_its_budget_is_never_pruned():
    module = SparseQuantNeuralNetImpl(
        10, 2, n_hidden_neurons=5, n_accum_bits=8, n_codes_per_feature=1
    )
    prune(module, 1.0)
    assert all((linear.mask == 1).all() for linear in module.linears)


def test_the_budget_is_reached_before_the_warm_up_ends():
    X, y = np.random.default_rng(0).normal(size=(30, 50)), np.arange(30) % 2
    _, recorder = recorded_fit(X, y, max_epochs=25, **THREE_WEIGHTS)
    kept = [layers[0] for layers in recorder.kept]
    # 10 epochs of warm-up, the budget of 3 after 8 of them: 3 + floor(47 * (1 - i / 8)**3).
    assert kept[:10] == [50, 34, 22, 14, 8, 5, 3, 3, 3, 3]
    assert kept[10:] == [3] * 15


@pytest.mark.parametrize(
    ("max_epochs", "n_warmup"), [(1, 0), (2, 1), (3, 2), (5, 2), (10, 4), (11, 5)]
)
def test_two_fifths_of_the_epochs_warm_up_and_at_least_one_fine_tunes(max_epochs, n_warmup):
    X, y = blobs(2, 20)
    clf, recorder = recorded_fit(X, y, max_epochs=max_epochs)
    assert recorder.warmup == [True] * n_warmup + [False] * (max_epochs - n_warmup)
    assert recorder.quantized == [not warmup for warmup in recorder.warmup]
    assert len(clf.history) == max_epochs
    assert clf.module_.quantized


@pytest.mark.parametrize(("warmup", "n_warmup"), [(0.0, 0), (0.7, 7), (1.0, 9)])
def test_the_length_of_the_warm_up_is_a_parameter(warmup, n_warmup):
    X, y = blobs(2, 20)
    _, recorder = recorded_fit(X, y, max_epochs=10, callbacks__quantization__warmup=warmup)
    assert sum(recorder.warmup) == n_warmup


def test_progress_of_a_phase_runs_from_0_to_1():
    phase = Phase(is_warmup=False, first_epoch=4, n_epochs=5)
    assert [phase.progress(epoch) for epoch in (3, 5, 6, 9, 10, 99)] == [0, 0, 0.2, 0.8, 1, 1]


def test_the_learning_rate_follows_a_cosine_in_each_phase_and_is_restored():
    X, y = blobs(2, 20)
    clf, recorder = recorded_fit(X, y, max_epochs=10, lr=0.02)
    warmup = [1.0, 0.853553, 0.5, 0.146447]
    fine_tuning = [1.0, 0.933013, 0.75, 0.5, 0.25, 0.066987]
    assert recorder.lr == pytest.approx([0.02 * f for f in warmup + fine_tuning], rel=1e-4)
    assert clf.optimizer_.param_groups[0]["lr"] == 0.02


def test_the_learning_rate_is_constant_without_the_decay():
    X, y = blobs(2, 20)
    _, recorder = recorded_fit(X, y, max_epochs=5, lr=0.02, callbacks__lr_decay=None)
    assert recorder.lr == [0.02] * 5


def test_the_schedule_is_no_callback_that_could_be_removed():
    X, y = blobs(2, 20)
    clf = NeuralNetClassifier(max_epochs=3, random_state=0)
    with pytest.raises(ValueError, match=r"'callbacks__quantization'.*__quantization__warmup"):
        clf.set_params(callbacks__quantization=None)
    with pytest.raises(ValueError, match=r"'callbacks__quantization'.*__quantization__warmup"):
        NeuralNetClassifier(max_epochs=3, callbacks__quantization=None).fit(X, y)
    others = {f"callbacks__{name}": None for name in ("weight_decay", "lr_decay", "progress_bar")}
    assert clf.set_params(**others).fit(X, y).module_.quantized


def test_the_float_teacher_serves_the_fine_tuning_only_and_is_not_kept():
    X, y = blobs(2, 20)
    clf, recorder = recorded_fit(X, y, max_epochs=5)
    assert recorder.teacher == [False, False, True, True, True]
    assert clf._schedule is None
    clf.partial_fit(X, y)
    assert recorder.teacher[5:] == [False] * 5


def test_without_distillation_there_is_no_teacher():
    X, y = blobs(2, 20)
    _, recorder = recorded_fit(X, y, max_epochs=5, callbacks__quantization__distillation=0.0)
    assert recorder.teacher == [False] * 5


def test_a_schedule_of_the_user_goes_on_through_the_quantization():
    X, y = blobs(2)
    rates = []

    class Record(Callback):
        def on_epoch_begin(self, net, dataset_train=None, **kwargs):
            rates.append(net.optimizer_.param_groups[0]["lr"])

    halving = LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    clf = NeuralNetClassifier(
        max_epochs=6,
        lr=0.01,
        random_state=0,
        callbacks=[halving, Record()],
        callbacks__lr_decay=None,
    )
    clf.fit(X, y)
    assert rates == pytest.approx([0.01 * 0.5**i for i in range(6)])


@pytest.mark.parametrize(
    ("name", "value"), [("warmup", -1), ("percentile", 0.98), ("distillation", 2)]
)
def test_a_setting_of_the_schedule_out_of_range_is_refused(name, value):
    X, y = blobs(2)
    clf = NeuralNetClassifier(max_epochs=3, **{f"callbacks__quantization__{name}": value})
    with pytest.raises(ValueError, match=f"callbacks__quantization__{name} must be between"):
        clf.fit(X, y)


# ---------------------------------------------------------------------- stopping early


def test_stopping_in_the_warm_up_still_fine_tunes_a_quantized_network():
    X, y = blobs(2, 20)
    recorder = Recorder()
    # A relative improvement of more than 100 % is impossible: each phase stops at once.
    stopping = EarlyStopping(monitor="train_loss", patience=2, threshold=1.0)
    clf = NeuralNetClassifier(
        max_epochs=50, random_state=0, callbacks=[recorder, ("stop", stopping)]
    ).fit(X, y)
    n_warmup, n_fine = sum(recorder.warmup), len(recorder.warmup) - sum(recorder.warmup)
    assert 1 <= n_warmup <= 4
    assert 1 <= n_fine <= 4
    assert clf.module_.quantized
    assert clf.predict(X).shape == (20,)


class WarmupOnlyImprovement(Callback):
    """Write a score that is best in the warm-up, as the loss of a float network is."""

    def on_epoch_end(self, net, **kwargs):
        epoch = len(net.history)
        net.history.record("score", 0.0 if net.phase_.is_warmup else 100.0 - epoch)


def test_the_float_networks_scores_do_not_stop_the_fine_tuning():
    X, y = blobs(2, 20)
    recorder = Recorder()
    stopping = EarlyStopping(monitor="score", patience=9, threshold=1e-6)
    NeuralNetClassifier(
        max_epochs=20,
        random_state=0,
        callbacks=[recorder, WarmupOnlyImprovement(), ("stop", stopping)],
    ).fit(X, y)
    # The score falls in every epoch of the fine-tuning.
    assert recorder.warmup.count(False) == 12


@pytest.mark.parametrize("train_split", [None, ValidSplit(4)])
def test_early_stopping_loads_the_best_quantized_weights(train_split):
    X, y = blobs(3, 60)
    monitor = "train_loss" if train_split is None else "valid_loss"
    stopping = EarlyStopping(monitor=monitor, patience=3, load_best=True)
    clf = NeuralNetClassifier(
        max_epochs=20, random_state=0, train_split=train_split, callbacks=[stopping]
    ).fit(X, y)
    assert clf.module_.quantized
    assert clf.score(X, y) > 0.8


class Interrupt(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == self.epoch:
            raise KeyboardInterrupt


def test_an_interrupt_in_the_fine_tuning_keeps_the_network_so_far():
    X, y = blobs(2, 20)
    clf = NeuralNetClassifier(max_epochs=10, random_state=0, callbacks=[Interrupt(6)]).fit(X, y)
    assert len(clf.history) == 6
    assert clf.predict(X).shape == (20,)
    assert clf._schedule is None
    assert clf.optimizer_.param_groups[0]["lr"] == clf.lr


# ---------------------------------------------------------------------- weight decay


@pytest.mark.parametrize(("n_rows", "rate"), [(20, 3.0), (1000, 1.0), (4000, 0.25)])
def test_small_data_shrink_weights_more_than_large(n_rows, rate):
    decay = WeightDecay()
    decay.on_epoch_begin(None, dataset_train=range(n_rows))
    assert decay.rate_ == rate


def test_weights_but_not_biases_decay_in_the_warm_up_only():
    module = SparseQuantNeuralNetImpl(3, 2, n_hidden_neurons=4)
    before = copy.deepcopy(module)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    decay = WeightDecay(strength=100.0)
    decay.on_epoch_begin(None, dataset_train=range(50))
    for is_warmup in (True, False):
        net = SimpleNamespace(phase_=Phase(is_warmup, 0, 1), module_=module, optimizer_=optimizer)
        decay.on_batch_end(net, training=True)
        decay.on_batch_end(net, training=False)
    for old, new in zip(before.linears, module.linears, strict=True):
        torch.testing.assert_close(new.weight, old.weight * (1 - 0.01 * 2))
        assert (new.bias is old.bias is None) or torch.equal(new.bias, old.bias)


def test_a_rate_beyond_one_step_gives_zero_and_not_the_other_sign():
    X, y = blobs(2, 20)
    clf = NeuralNetClassifier(lr=1.0, max_epochs=3, module__n_hidden_neurons=4, random_state=0)
    with np.errstate(all="raise"):
        assert np.isfinite(clf.fit(X, y).predict_proba(X)).all()


@pytest.mark.parametrize(("name", "value"), [("strength", -1.0), ("largest", np.nan)])
def test_an_invalid_decay_is_refused(name, value):
    clf = NeuralNetClassifier(max_epochs=2, **{f"callbacks__weight_decay__{name}": value})
    with pytest.raises(ValueError, match=f"weight_decay__{name} must be a number of at least 0"):
        clf.fit(*blobs(2, 20))


def test_decay_keeps_a_network_from_learning_noise():
    rng = np.random.default_rng(0)
    X, X_test = rng.normal(size=(150, 8)), rng.normal(size=(2000, 8))
    y = X[:, 0] + rng.normal(size=150)
    options = {"max_epochs": 60, "random_state": 0}
    with_decay = NeuralNetRegressor(**options).fit(X, y).score(X_test, X_test[:, 0])
    without = NeuralNetRegressor(**options, callbacks__weight_decay=None).fit(X, y)
    assert with_decay > without.score(X_test, X_test[:, 0]) + 0.05


def test_auto_takes_neurons_and_batches_by_the_rows():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(6000, 2)), np.arange(6000) % 2
    few, many = (
        NeuralNetClassifier(max_epochs=1, random_state=0, **NO_TEACHER).fit(X[:n], y[:n])
        for n in (300, 6000)
    )
    assert few.module_.n_neurons[0] == 24
    assert many.module_.n_neurons[0] == 64
    batches = [[b["train_batch_size"] for b in clf.history[0, "batches"]] for clf in (few, many)]
    assert [max(sizes) for sizes in batches] == [64, 128]
    with pytest.raises(ValueError, match=r'"auto", an int or a sequence of int'):
        NeuralNetClassifier(module__n_hidden_neurons="many").fit(X[:300], y[:300])
