"""Threads of torch: one while small networks train, and the setting of before afterwards."""

from __future__ import annotations

import threading

import pytest
import torch
from cases import NO_TEACHER, blobs
from skorch.callbacks import Callback

from cipherlearn import NeuralNetClassifier, NeuralNetRegressor
from cipherlearn.training._threads import one_thread

SETTING = 3


@pytest.fixture(autouse=True)
def setting():
    before = torch.get_num_threads()
    torch.set_num_threads(SETTING)
    yield
    torch.set_num_threads(before)


def in_new_thread(function):
    """Call the function in a thread of its own, and return what it returned."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join(60)
    return results[0]


def assert_restored():
    assert torch.get_num_threads() == SETTING
    assert in_new_thread(torch.get_num_threads) == SETTING


class Observer(Callback):
    """Note the threads of each epoch, and end training by an error if it has one."""

    def __init__(self, error=None):
        self.error, self.threads = error, []

    def on_epoch_end(self, net, **kwargs):
        self.threads.append(torch.get_num_threads())
        if self.error is not None:
            raise self.error


def observed(estimator=NeuralNetClassifier, error=None, **parameters):
    observer = Observer(error)
    defaults = {
        "module__n_hidden_neurons": 3,
        "max_epochs": 2,
        "random_state": 0,
        "warn_on_loss": False,
        **NO_TEACHER,
    }
    return estimator(**{**defaults, **parameters}, callbacks=[observer]), observer


@pytest.mark.parametrize("estimator", [NeuralNetClassifier, NeuralNetRegressor])
@pytest.mark.parametrize("method", ["fit", "partial_fit", "prune"])
def test_training_takes_one_thread_and_gives_the_others_back(estimator, method):
    X, y = blobs(2)
    net, observer = observed(estimator)
    if method == "prune":
        small = net.fit(X, y).prune(X, y, 0.3)
        observer = dict(small.callbacks_)["Observer"]
    else:
        getattr(net, method)(X, y)
    assert len(observer.threads) >= 2
    assert set(observer.threads) == {1}
    assert_restored()


@pytest.mark.parametrize("batch_size", [32, -1])
def test_steps_of_milliseconds_may_take_all_threads(batch_size):
    X, y = blobs(2, 3000)
    # 3000 rows through 4 features of 16 codes, and 512 neurons.
    net, observer = observed(module__n_hidden_neurons=512, batch_size=batch_size, max_epochs=1)
    net.fit(X, y)
    assert observer.threads == [SETTING if batch_size == -1 else 1]
    assert_restored()


def test_a_failed_training_gives_the_threads_back():
    X, y = blobs(2)
    net, observer = observed(error=RuntimeError("stop"))
    with pytest.raises(RuntimeError, match="stop"):
        net.fit(X, y)
    assert observer.threads == [1]
    assert_restored()


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit])
def test_an_interrupt_gives_the_threads_back(error):
    with pytest.raises(error), one_thread():
        raise error
    assert_restored()
    X, y = blobs(2)
    net, _ = observed(error=KeyboardInterrupt())
    net.fit(X, y)
    assert_restored()


def test_the_limit_ends_with_the_outermost_use():
    with one_thread():
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert_restored()


@pytest.mark.parametrize("first_out", ["main", "other"])
def test_two_threads_that_train_at_once_give_the_setting_back(first_out):
    entered, leave = threading.Event(), threading.Event()
    seen = {}

    def other():
        with one_thread():
            seen["inside"] = torch.get_num_threads()
            entered.set()
            leave.wait(60)
        seen["after"] = torch.get_num_threads()

    thread = threading.Thread(target=other)
    with one_thread():
        thread.start()
        assert entered.wait(60)
        if first_out == "other":
            leave.set()
            thread.join(60)
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == SETTING
    leave.set()
    thread.join(60)
    assert seen == {"inside": 1, "after": SETTING}
    assert_restored()
