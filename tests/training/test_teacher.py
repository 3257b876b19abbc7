"""A larger float network labels noisy copies of the rows, where it is better than this one."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.datasets import make_gaussian_quantiles
from skorch.callbacks import Callback

from cipherlearn import NeuralNetClassifier, NeuralNetRegressor
from cipherlearn.training._schedule import Schedule
from cipherlearn.training._teacher import Teacher, swap_noise

X, Y = make_gaussian_quantiles(n_samples=1500, n_features=5, n_classes=3, random_state=0)


class Watcher(Callback):
    """Note the teachers of a training."""

    def on_epoch_begin(self, net, **kwargs):
        self.teachers = net._schedule.large_teacher, net._schedule.teacher


def teachers(X=X, y=Y, kind=NeuralNetClassifier, weight=None, **parameters):
    watcher = Watcher()
    net = kind(
        module__n_hidden_neurons=2,
        module__n_components=0,
        max_epochs=2,
        random_state=0,
        callbacks=[watcher],
        **parameters,
    )
    net.fit(X, y, weight)
    return watcher.teachers


def test_a_better_network_teaches_in_both_phases():
    large, own = teachers()
    accuracy = (large(torch.tensor(X)).argmax(dim=1).numpy() == Y).mean()
    assert accuracy > 0.8
    assert own is None


def test_it_teaches_regressors_and_weighted_rows_too():
    y = (X**2).sum(axis=1)
    weight = np.where(np.arange(1500) % 2, 1.0, 3.0)
    large, _ = teachers(y=y, kind=NeuralNetRegressor, weight=weight)
    assert np.corrcoef(large(torch.tensor(X)).detach().numpy()[:, 0], y)[0, 1] > 0.95


@pytest.mark.parametrize(
    "options",
    [
        {"callbacks__quantization__augment": False},
        {"X": X[:400], "y": Y[:400]},
        {"X": csr_array(np.where(X > 1, X, 0))},
        {"criterion": torch.nn.CrossEntropyLoss},
        {"callbacks__quantization__distillation": 0.0},
    ],
    ids=["off", "few rows", "sparse", "criterion", "no distillation"],
)
def test_it_is_left_out(options):
    assert teachers(**options)[0] is None


def test_a_network_that_is_no_better_does_not_teach():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(500, 3))
    # Thresholds show this at once, and standardized features hardly.
    noise[:, 0] = np.exp(12 * noise[:, 0])
    assert teachers(X=noise, y=noise[:, 0] > 1)[0] is None


@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.7])
def test_a_given_network_labels_rows_by_its_share_and_copies_alone(augment, share):
    torch.manual_seed(0)
    given, rows, y = torch.nn.Linear(5, 3).double(), torch.tensor(X[:40]), torch.tensor(Y[:40])
    schedule = Schedule(0.4, 95, share, augment, large_teacher=given)
    net = SimpleNamespace(device="cpu")
    features, targets = schedule.augmented(net, (rows, y))
    said = given(features).softmax(dim=1).detach()
    assert len(features) == (80 if augment else 40)
    assert torch.equal(features[:40], rows)
    assert augment == bool((features[40:] != rows[: len(features) - 40]).any())
    torch.testing.assert_close(targets[:40], share * said[:40] + (1 - share) * torch.eye(3)[y])
    torch.testing.assert_close(targets[40:], said[40:])
    weighted = {"X": rows, "sample_weight": torch.arange(40.0)}
    batch, _ = schedule.augmented(net, (weighted, y))
    assert batch["sample_weight"].tolist() == [*range(40)] * (2 if augment else 1)


def test_noise_replaces_features_by_those_of_other_rows():
    torch.manual_seed(0)
    rows = torch.arange(300.0).reshape(100, 3)
    noisy = swap_noise(rows)
    changed = noisy != rows
    assert 0.1 < changed.float().mean() < 0.3
    assert (noisy % 3 == rows % 3).all()


def test_a_teacher_is_the_mean_of_its_members_and_ignores_constants():
    torch.manual_seed(0)
    rows = torch.cat([torch.randn(50, 2), torch.ones(50, 1)], dim=1)
    teacher = Teacher(rows, 3)
    members = teacher.members(rows)
    assert members.shape == (4, 50, 3)
    assert members.isfinite().all()
    torch.testing.assert_close(teacher(rows), members.mean(dim=0))
