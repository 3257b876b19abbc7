"""Batches hold the rows of the dataset, each once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch.dataset import Dataset
from skorch.helper import predefined_split
from torch.utils.data import DataLoader, Subset, TensorDataset

from cipherlearn import NeuralNetClassifier
from cipherlearn.training._batches import TensorBatches

X, y = np.arange(14.0).reshape(7, 2), np.arange(7)


def rows_of(batches):
    return [(features.tolist(), targets.tolist()) for features, targets in batches]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 99])
@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_are_those_of_the_loader(batch_size, drop_last):
    batches = TensorBatches(Dataset(X, y), batch_size, drop_last=drop_last)
    loader = DataLoader(Dataset(X, y), batch_size, drop_last=drop_last)
    assert rows_of(batches) == rows_of(loader)
    assert len(batches) == len(loader)


def test_minus_one_takes_all_rows():
    assert rows_of(TensorBatches(Dataset(X, y), -1)) == [(X.tolist(), y.tolist())]


def test_each_pass_shuffles_anew_and_keeps_rows_together():
    batches = TensorBatches(Dataset(X, y), 3, shuffle=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        passes = [torch.cat([targets for _, targets in batches]).tolist() for _ in range(3)]
        features, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert all(sorted(order) == y.tolist() for order in passes)
    assert len({tuple(order) for order in passes}) == 3
    assert features.tolist() == X[targets].tolist()


def test_subsets_of_subsets_and_dictionaries_are_indexed():
    dataset = Subset(Subset(Dataset({"X": X, "sample_weight": y / 2}, y), [1, 3, 5, 6]), [0, 2])
    ((features, targets),) = TensorBatches(dataset, 9)
    assert features["X"].tolist() == X[[1, 5]].tolist()
    assert features["sample_weight"].tolist() == [0.5, 2.5]
    assert targets.tolist() == [1, 5]


def test_rows_without_targets_get_zeros():
    ((_, targets),) = TensorBatches(Dataset(X), 9)
    assert targets.tolist() == [0] * 7


def test_datasets_of_other_kinds_go_through_the_loader():
    clf = NeuralNetClassifier(
        module__n_hidden_neurons=2,
        max_epochs=2,
        random_state=0,
        train_split=predefined_split(TensorDataset(torch.tensor(X), torch.tensor(y // 4))),
    ).fit(X, y // 4)
    assert len(clf.history_[:, "valid_loss"]) == 2


def test_a_loader_with_other_options_is_left_alone():
    clf = NeuralNetClassifier(
        module__n_hidden_neurons=2, max_epochs=2, random_state=0, iterator_train__num_workers=0
    ).fit(X, y > 2)
    assert isinstance(clf.get_iterator(Dataset(X, y), training=True), DataLoader)
    assert isinstance(clf.get_iterator(Dataset(X, y)), TensorBatches)
