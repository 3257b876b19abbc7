"""Float networks that are trained already, as teachers: their outputs for rows of features."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from cipherlearn._features import dense_rows

__all__ = ["FloatNetwork", "Standardized", "mlp_module", "outputs_of"]

_ACTIVATIONS = {
    "identity": nn.Identity,
    "logistic": nn.Sigmoid,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
}

_BLOCK_ROWS = 1024


class FloatNetwork(nn.Module):
    """Copy of a float network that gives one column for each class, or for each target.

    Parameters
    ----------
    network : torch module
        It maps rows of its own dtype, of shape (n_samples, n_features), to outputs.
    order : sequence of int, default=None
        Which output each sorted class is. ``None`` keeps the outputs as they are. A single output
        of two classes is the logit of the second.
    """

    def __init__(self, network: nn.Module, order: ArrayLike | None = None) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu().eval()
        dtypes = [each.dtype for each in network.parameters() if each.is_floating_point()]
        self.dtype = dtypes[0] if dtypes else torch.float32
        self.order = None if order is None else np.asarray(order).tolist()
        self.eval()

    def forward(self, X: Tensor) -> Tensor:
        outputs = self.network(X.to(self.dtype))
        if outputs.ndim == 1:
            outputs = outputs[:, None]
        if self.order is None:
            return outputs
        if outputs.shape[1] == 1:
            outputs = torch.cat([torch.zeros_like(outputs), outputs], dim=1)
        return outputs[:, self.order]


class Standardized(nn.Module):
    """Outputs of a network in the units of a regressor's standardized targets."""

    mean: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, mean: NDArray, scale: NDArray) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.as_tensor(mean))
        self.register_buffer("scale", torch.as_tensor(scale))
        self.eval()

    def forward(self, X: Tensor) -> Tensor:
        return ((self.network(X) - self.mean) / self.scale).float()


class _Exponential(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X.exp()


def mlp_module(mlp: Any) -> nn.Module:
    """Write scikit-learn's MLP as a torch module. A classifier's gives logits.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sklearn.neural_network import MLPRegressor
    >>> from cipherlearn.training._float_networks import mlp_module
    >>> X = np.linspace(0, 1, 50)[:, None]
    >>> mlp = MLPRegressor(hidden_layer_sizes=(4,), solver="lbfgs", random_state=0)
    >>> mlp = mlp.fit(X, X[:, 0])
    >>> outputs = mlp_module(mlp)(torch.tensor(X))[:, 0]
    >>> np.allclose(outputs.detach(), mlp.predict(X))
    True
    """
    layers: list[nn.Module] = []
    for weights, biases in zip(mlp.coefs_, mlp.intercepts_, strict=True):
        dtype = torch.from_numpy(weights).dtype
        # Without initial weights, which would be drawn from the global generator.
        linear = nn.utils.skip_init(nn.Linear, *weights.shape, dtype=dtype)
        linear.load_state_dict(
            {"weight": torch.tensor(weights.T), "bias": torch.tensor(biases, dtype=dtype)}
        )
        layers += [linear, _ACTIVATIONS[mlp.activation]()]
    # What follows a classifier's logits is softmax, or its like for two classes.
    layers[-1] = _Exponential() if mlp.out_activation_ == "exp" else nn.Identity()
    return nn.Sequential(*layers)


@torch.no_grad()
def outputs_of(network: nn.Module, X: Any) -> NDArray:
    """Compute the outputs of a network for an array or sparse matrix of features."""
    starts = range(0, X.shape[0], _BLOCK_ROWS)
    blocks = [dense_rows(X, slice(start, start + _BLOCK_ROWS)) for start in starts]
    return np.concatenate([network(torch.as_tensor(rows)).double().numpy() for rows in blocks])
