"""Conversion of float networks that are trained already, by distillation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_array, check_is_fitted

from cipherlearn.estimators._classifier import NeuralNetClassifier
from cipherlearn.estimators._modules import is_own
from cipherlearn.estimators._regressor import NeuralNetRegressor
from cipherlearn.training._float_networks import FloatNetwork, mlp_module, outputs_of

__all__ = ["from_sklearn", "from_torch"]


def from_sklearn(
    mlp: Any, X: ArrayLike, y: ArrayLike | None = None, **parameters: Any
) -> NeuralNetClassifier | NeuralNetRegressor:
    """Convert a fitted MLP of scikit-learn to an estimator that predicts on encrypted rows.

    A sparse quantized network learns the function of the MLP, which labels the rows and noisy
    copies of them, as a teacher [1]_. No labels are needed. The shape of the new network does not
    follow the MLP's: neurons are as many as ``module__n_hidden_neurons`` says.

    Parameters
    ----------
    mlp : MLPClassifier or MLPRegressor
        The fitted network, which is not changed.
    X : array-like or sparse matrix of shape (n_samples, n_features)
        Rows like those that the network is meant for, as many as there are: the training rows, or
        others. In the units that the MLP takes.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
        True labels or targets of the rows. They get the share in the targets that
        ``callbacks__quantization__distillation`` leaves them, and the scores are of them. ``None``
        takes what the MLP predicts.
    **parameters
        Parameters of the estimator, such as ``module__n_hidden_neurons=16`` or
        ``**presets.FAST``.

    Returns
    -------
    NeuralNetClassifier or NeuralNetRegressor
        Fitted, with the classes of the MLP and the names of its features. ``reference_score_`` is
        the score of the MLP on ``X``, and ``training_score_`` of the network. Without ``y`` the
        first is 1, and the second is the part of the rows on which both agree, or the R² between
        both.

    Raises
    ------
    TypeError
        If ``mlp`` is not an MLP, such as a Pipeline that ends in one.
    sklearn.exceptions.NotFittedError
        If it is not fitted.
    ValueError
        If it predicts several labels a row, or the data or a parameter is invalid.

    Warns
    -----
    AccuracyLossWarning
        If more than 2 points of the score are lost.

    See Also
    --------
    from_torch : The same for a float network of torch.

    References
    ----------
    .. [1] G. Hinton, O. Vinyals and J. Dean, "Distilling the knowledge in a neural network", 2015.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.neural_network import MLPClassifier
    >>> from cipherlearn import from_sklearn
    >>> X, y = load_iris(return_X_y=True)
    >>> mlp = MLPClassifier((32,), max_iter=1000, random_state=0).fit(X, y)
    >>> clf = from_sklearn(mlp, X, max_epochs=60, random_state=0)
    >>> bool((clf.predict(X) == mlp.predict(X)).mean() > 0.9)
    True
    """
    if not isinstance(mlp, MLPClassifier | MLPRegressor):
        raise TypeError(_refusal(mlp))
    check_is_fitted(mlp)
    if isinstance(mlp, MLPClassifier) and mlp.out_activation_ == "logistic" and mlp.n_outputs_ > 1:
        raise ValueError(
            "The MLPClassifier must predict one label a row. Got one of several labels "
            f"(multilabel, {mlp.n_outputs_} of them). Fit and convert an MLP for each label."
        )
    # It checks the rows in words of its own.
    predicted = mlp.predict(X)
    y = predicted if y is None else y
    net: NeuralNetClassifier | NeuralNetRegressor
    if isinstance(mlp, MLPClassifier):
        net = _classifier(parameters)
        classes = mlp.classes_
        teacher = FloatNetwork(mlp_module(mlp), range(len(classes)))
        net._fit(X, _check_labels(y, classes), None, cold=True, classes=classes, teacher=teacher)
    else:
        net = _regressor(parameters)
        net._fit(
            X, _check_targets(y, predicted), None, cold=True, teacher=FloatNetwork(mlp_module(mlp))
        )
    if hasattr(mlp, "feature_names_in_"):
        net.feature_names_in_ = mlp.feature_names_in_
    return net


def from_torch(
    network: torch.nn.Module,
    X: ArrayLike,
    y: ArrayLike | None = None,
    *,
    classes: ArrayLike | None = None,
    **parameters: Any,
) -> NeuralNetClassifier | NeuralNetRegressor:
    """Convert a trained float network of torch to an estimator that predicts on encrypted rows.

    The network may be of any kind, since it only labels rows (:func:`from_sklearn`). A network of
    images follows ``torch.nn.Unflatten``.

    Parameters
    ----------
    network : torch.nn.Module
        Its ``forward`` maps rows of shape (n_samples, n_features), of the dtype of its parameters,
        to logits of shape (n_samples, n_classes), or to targets. It is not changed.
    X : array-like or sparse matrix of shape (n_samples, n_features)
        Rows like those that the network is meant for, in the units that it takes.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
        True labels or targets, as for :func:`from_sklearn`.
    classes : array-like of shape (n_classes,), default=None
        Label of each output, for a classifier. A single output is the logit of the second of two
        labels. ``None`` makes a regressor, whose targets are the outputs.
    **parameters
        Parameters of the estimator.

    Returns
    -------
    NeuralNetClassifier or NeuralNetRegressor
        Fitted, with the same scores as after :func:`from_sklearn`.

    Raises
    ------
    TypeError
        If ``network`` is not a torch module.
    ValueError
        If its outputs do not fit ``classes`` or ``y``, or are probabilities, or the data or a
        parameter is invalid.

    Warns
    -----
    AccuracyLossWarning
        If more than 2 points of the score are lost.

    Examples
    --------
    >>> import torch
    >>> from cipherlearn import from_torch
    >>> network = torch.nn.Linear(2, 1)  # trained elsewhere
    >>> _ = torch.nn.init.constant_(network.weight, 5.0)
    >>> _ = torch.nn.init.zeros_(network.bias)
    >>> X = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)).numpy()
    >>> clf = from_torch(network, X, classes=["no", "yes"], max_epochs=20, random_state=0)
    >>> clf.predict([[-1.0, -1.0], [1.0, 1.0]])
    array(['no', 'yes'], dtype='<U3')
    """
    if not isinstance(network, torch.nn.Module):
        raise TypeError(
            f"network must be a torch.nn.Module. Got {type(network).__name__}. Pass the module_ "
            "of a skorch net, and an MLP of scikit-learn to from_sklearn."
        )
    rows = check_array(X, dtype=np.float64, accept_sparse="csr")
    outputs = _outputs(network, rows)
    if classes is None:
        predicted = outputs[:, 0] if outputs.shape[1] == 1 else outputs
        y = predicted if y is None else _check_targets(y, predicted)
        reg = _regressor(parameters)
        return reg._fit(X, y, None, cold=True, teacher=FloatNetwork(network))
    labels, order = np.unique(np.asarray(classes), return_index=True)
    _check_logits(outputs, np.asarray(classes), labels)
    teacher = FloatNetwork(network, order)
    y = labels[outputs_of(teacher, rows).argmax(axis=1)] if y is None else _check_labels(y, labels)
    return _classifier(parameters)._fit(X, y, None, cold=True, classes=labels, teacher=teacher)


def _refusal(model: Any) -> str:
    rule = "mlp must be an MLPClassifier or MLPRegressor. Got "
    name = type(model).__name__
    if isinstance(model, Pipeline):
        return (
            f"{rule}a {name}. Convert its last step, for rows that the steps before it have "
            "transformed: net = from_sklearn(pipe[-1], pipe[:-1].transform(X)). "
            'Pipeline([*pipe.steps[:-1], ("net", net)]) takes the place of the whole.'
        )
    if hasattr(model, "best_estimator_"):
        return f"{rule}{name}. Pass its best_estimator_."
    if isinstance(model, torch.nn.Module):
        return f"{rule}{name}. Use from_torch."
    return (
        f"{rule}{name}. Fit a NeuralNetClassifier or NeuralNetRegressor on what another model "
        "predicts: fit(X, model.predict(X))."
    )


def _classifier(parameters: dict[str, Any]) -> NeuralNetClassifier:
    criterion = parameters.get("criterion")
    if not (criterion is None or criterion is torch.nn.CrossEntropyLoss):
        raise ValueError(
            "A classifier learns the probabilities of a given network by criterion=None or "
            f"torch.nn.CrossEntropyLoss. Got {criterion!r}. Leave it out."
        )
    _check_learner(parameters)
    return NeuralNetClassifier(**parameters)


def _regressor(parameters: dict[str, Any]) -> NeuralNetRegressor:
    _check_learner(parameters)
    return NeuralNetRegressor(**parameters)


def _check_learner(parameters: dict[str, Any]) -> None:
    module = parameters.get("module")
    if module is not None and not is_own(module):
        raise ValueError(
            "A given network teaches the network of this library alone, since a module of your own "
            f"is trained as skorch does. Got module={module!r:.100}. Leave it out, or fit an "
            "estimator of that module on what the given network predicts."
        )


def _check_labels(y: ArrayLike, classes: NDArray) -> ArrayLike:
    if len(unknown := np.setdiff1d(np.asarray(y), classes)):
        raise ValueError(
            f"y must hold only the classes of the given network, {classes}. Got also {unknown}. "
            "Leave these rows out."
        )
    return y


def _check_targets(y: ArrayLike, predicted: NDArray) -> ArrayLike:
    shape = np.shape(y)
    if shape[1:] != predicted.shape[1:] and shape[1:] != (1,):
        raise ValueError(
            "y must have as many targets as the given network has outputs. Got y of shape "
            f"{shape} for outputs of shape {predicted.shape}. Leave y out, or give classes to "
            "from_torch if the network is a classifier."
        )
    return y


def _outputs(network: torch.nn.Module, rows: Any) -> NDArray:
    """Compute what a network gives for rows, or raise ValueError."""
    rule = "network must map rows of shape (n_samples, n_features) to finite outputs, a row each."
    try:
        outputs = outputs_of(FloatNetwork(network), rows)
    except (AttributeError, IndexError, RuntimeError, TypeError) as error:
        raise ValueError(f"{rule} For rows of shape {rows.shape}, it raised: {error}") from error
    if outputs.ndim != 2 or len(outputs) != rows.shape[0] or not np.isfinite(outputs).all():
        finite = "" if np.isfinite(outputs).all() else ", not all finite"
        raise ValueError(
            f"{rule} Got outputs of shape {outputs.shape}{finite} for rows of shape {rows.shape}. "
            "Reshape in the network, by torch.nn.Flatten for instance."
        )
    return outputs


def _check_logits(outputs: NDArray, given: NDArray, labels: NDArray) -> None:
    n_outputs = outputs.shape[1]
    if given.ndim != 1 or len(labels) != len(given):
        raise ValueError(f"classes must hold one label for each output, each once. Got {given}.")
    if len(labels) != n_outputs and (len(labels), n_outputs) != (2, 1):
        raise ValueError(
            f"classes must hold one label for each of the {n_outputs} output(s), or two for a "
            f"single output. Got {len(labels)}: {given}."
        )
    if n_outputs > 1 and (outputs >= 0).all() and np.allclose(outputs.sum(axis=1), 1, atol=1e-4):
        raise ValueError(
            "The outputs of a classifier must be logits. Got probabilities, which add up to 1. "
            "Leave the last torch.nn.Softmax out, or make it a torch.nn.LogSoftmax."
        )
