"""Batches of small data, without the cost of torch's loader per row."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import skorch
import torch
from torch.utils.data import Dataset, Subset

from cipherlearn._features import dense_rows, is_sparse

__all__ = ["RowDataset", "TensorBatches", "arrays_of", "holds_arrays"]


class RowDataset(skorch.dataset.Dataset):
    """A skorch dataset whose rows are dense, sparse features in a dict too."""

    def transform(self, X, y):
        if isinstance(X, dict):
            X = {name: X[name].toarray()[0] if is_sparse(X[name]) else X[name] for name in X}
        return super().transform(X, y)


def holds_arrays(dataset: Any) -> bool:
    """Whether this is a skorch dataset of arrays, tensors or sparse features, or a subset."""
    if isinstance(dataset, Subset):
        return holds_arrays(dataset.dataset)
    if not isinstance(dataset, skorch.dataset.Dataset):
        return False
    values = [*dataset.X.values()] if isinstance(dataset.X, dict) else [dataset.X]
    targets = [] if dataset.y is None else [dataset.y]
    return all(
        isinstance(value, np.ndarray | torch.Tensor) or is_sparse(value)
        for value in [*values, *targets]
    )


def arrays_of(dataset: Any) -> tuple[Any, np.ndarray | None]:
    """Return the features and targets of a skorch dataset, or of a subset of one."""
    if isinstance(dataset, Subset):
        X, y = arrays_of(dataset.dataset)
        rows = np.asarray(dataset.indices)
        X = {name: X[name][rows] for name in X} if isinstance(X, dict) else X[rows]
        return X, None if y is None else y[rows]
    return dataset.X, dataset.y


class TensorBatches:
    """Iterate over a dataset by indexing whole batches of tensors.

    torch's loader fetches and stacks single rows, which takes longer than a training step of a
    small network. Of sparse features a batch at a time is made dense.

    Parameters
    ----------
    dataset : skorch.dataset.Dataset, or a torch Subset of one
        Arrays of features and targets. The features may be a sparse matrix.
    batch_size : int
        Rows of a batch. -1 takes all rows at once.
    shuffle : bool, default=False
        Whether each pass has an order of its own.
    drop_last : bool, default=False
        Whether to leave out a last batch that is not full.
    """

    def __init__(
        self, dataset: Dataset, batch_size: int, shuffle: bool = False, drop_last: bool = False
    ) -> None:
        X, y = arrays_of(dataset)
        self.n_rows = len(dataset)  # type: ignore[arg-type]
        self.batch_size = self.n_rows if batch_size == -1 else batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.X = torch.utils.data.default_convert(X)
        # skorch's datasets give a zero for each row that has no target.
        self.y = torch.zeros(self.n_rows) if y is None else torch.as_tensor(y)

    def __len__(self) -> int:
        count = self.n_rows / self.batch_size
        return math.floor(count) if self.drop_last else math.ceil(count)

    def __iter__(self) -> Iterator[tuple[Any, torch.Tensor]]:
        rows = torch.randperm(self.n_rows) if self.shuffle else torch.arange(self.n_rows)
        for batch in rows.split(self.batch_size)[: len(self)]:
            if isinstance(self.X, dict):
                yield {name: _rows(X, batch) for name, X in self.X.items()}, self.y[batch]
            else:
                yield _rows(self.X, batch), self.y[batch]


def _rows(values: Any, rows: torch.Tensor) -> torch.Tensor:
    if is_sparse(values):
        return torch.from_numpy(dense_rows(values, rows.numpy()))
    return values[rows]
