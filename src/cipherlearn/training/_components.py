"""Whether principal components of the features help, and how many there may be."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV

from cipherlearn._features import dense_rows
from cipherlearn._samples import sample_rows
from cipherlearn.nn._components import MOST_FEATURES
from cipherlearn.nn._network import SparseQuantNeuralNetImpl

__all__ = ["choose_components"]

_MOST_COMPONENTS = 32

# Rows that are looked at: at most so many, and so many values. Of few, no comparison says anything.
_ROWS, _VALUES, _FEWEST_ROWS = 2000, 500_000, 20

# Components must lower the squared error to this part of it. If they do not, they are of no use,
# and on few rows they let a network learn noise.
_BETTER = 0.99

_PENALTIES = 10.0 ** np.arange(-1, 5.5, 0.5)


def choose_components(X: Any, y: NDArray, sample_weight: NDArray) -> int:
    """Return the number of components to encode: none unless they help a linear model.

    Ridge regression of the targets on the codes, with components and without, is compared by the
    squared error on each row when it is left out [1]_.

    Parameters
    ----------
    X : ndarray or sparse matrix of shape (n_samples, n_features)
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        Numbers of classes, or standardized targets.
    sample_weight : ndarray of shape (n_samples,)

    References
    ----------
    .. [1] R. Rifkin and R. Lippert, "Notes on regularized least squares", MIT CSAIL technical
       report 2007-025, 2007, section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from cipherlearn.training._components import choose_components
    >>> rng = np.random.default_rng(0)
    >>> level, single = rng.normal(size=(300, 1)), rng.normal(size=(300, 8))
    >>> X = level + 0.1 * single
    >>> choose_components(X, single[:, :4].mean(axis=1), np.ones(300))  # differences
    8
    >>> choose_components(single, abs(single[:, 0]), np.ones(300))  # a feature
    0
    """
    n_features = X.shape[1]
    n_components = min(_MOST_COMPONENTS, n_features)
    # One feature is its own component.
    if not 1 < n_features <= MOST_FEATURES or X.shape[0] < _FEWEST_ROWS:
        return 0
    rows = sample_rows(X.shape[0], min(_ROWS, _VALUES // (n_features + n_components)))
    features = torch.as_tensor(dense_rows(X, rows))
    targets = y[rows]
    if targets.dtype.kind in "iu":
        targets = (targets[:, None] == np.unique(targets)).astype(np.float64)
    errors = [
        _error_of_left_out_rows(features, n, targets, sample_weight[rows])
        for n in (0, n_components)
    ]
    return n_components if errors[1] < _BETTER * errors[0] else 0


def _error_of_left_out_rows(
    X: torch.Tensor, n_components: int, targets: NDArray, sample_weight: NDArray
) -> float:
    with torch.random.fork_rng(devices=[]):
        module = SparseQuantNeuralNetImpl(X.shape[1], 1, n_layers=1, n_components=n_components)
    module.fit_encoder(X)
    codes = module.encode(X)[0].numpy().astype(np.float64)
    ridge = RidgeCV(_PENALTIES).fit(codes, targets, sample_weight)
    return -float(ridge.best_score_)
