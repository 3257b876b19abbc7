"""The trained network inside what users hold: a pipeline, a search or an estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from cipherlearn._unwrap import final_network, unwrapped

if TYPE_CHECKING:
    from cipherlearn.circuit._circuit import Circuit
    from cipherlearn.circuit._cost import CostEstimate
    from cipherlearn.inspection._report import Report
    from cipherlearn.nn._network import SparseQuantNeuralNetImpl
    from cipherlearn.program._program import IntegerProgram

__all__ = ["FittedNetwork", "class_names", "feature_names", "find_network", "network_inputs"]


class FittedNetwork(Protocol):
    """What is read of a fitted classifier or regressor. Nothing here imports the estimators."""

    module_: SparseQuantNeuralNetImpl
    program_: IntegerProgram
    circuit_: Circuit
    history: Any
    n_features_in_: int
    feature_names_in_: NDArray
    classes_: NDArray

    def get_params(self, deep: bool = ...) -> dict[str, Any]:
        """Get the parameters by name."""

    def score(self, X: ArrayLike, y: ArrayLike) -> float:
        """Return the accuracy, or R²."""

    def estimate(self, **compile_options: Any) -> CostEstimate:
        """Estimate the cost of encrypted prediction."""

    def report(self, X: ArrayLike | None = ..., **compile_options: Any) -> Report:
        """Describe every layer."""

    def _check_features(self, X: ArrayLike) -> NDArray[np.float64]: ...


def find_network(model: Any) -> FittedNetwork:
    """Return the fitted network that a model is, ends in or has found.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the model is not fitted.
    TypeError
        If there is no network.
    """
    network = final_network(model)
    check_is_fitted(network)
    return network


def network_inputs(model: Any, X: ArrayLike) -> Any:
    """Turn features of a model into those that reach its network."""
    network = find_network(model)
    for part in unwrapped(model):
        if isinstance(part, Pipeline) and len(part) > 1:
            X = part[:-1].transform(X)
    return network._check_features(X)


def feature_names(model: Any) -> list[str]:
    """Return the names of the network's features, or "x0", "x1" and so on."""
    network = find_network(model)
    if hasattr(network, "feature_names_in_"):
        return network.feature_names_in_.tolist()
    names: list[str] = []
    for part in unwrapped(model):
        if isinstance(part, Pipeline) and len(part) > 1:
            try:
                names = list(part[:-1].get_feature_names_out())
            except (AttributeError, ValueError):
                # A transformer that names nothing.
                names = []
    if len(names) != network.n_features_in_:
        return [f"x{i}" for i in range(network.n_features_in_)]
    return [str(name) for name in names]


def class_names(network: FittedNetwork) -> list[str]:
    """Return the label, or the number of the target, that each output stands for."""
    if hasattr(network, "classes_"):
        return [str(label) for label in network.classes_]
    n_outputs = network.program_.n_outputs
    return ["target"] if n_outputs == 1 else [f"target {i}" for i in range(n_outputs)]
