"""Classifier of encrypted rows."""

# Keys for these sums take many minutes with the other engine.
# engine: concrete-python

from __future__ import annotations

from typing import Any

import numpy as np
import skorch
import torch
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from cipherlearn.estimators._base import EncryptedPredictionNet
from cipherlearn.estimators._class_weight import weights_of_classes
from cipherlearn.estimators._names import PREDICT_ARGUMENTS, refusing
from cipherlearn.estimators._parameter_docs import (
    OTHER_PARAMETERS_DOC,
    PARAMETERS_DOC,
    with_parameter,
)
from cipherlearn.estimators._skorch import check_sample_weight
from cipherlearn.nn._network import SparseQuantNeuralNetImpl
from cipherlearn.program._decoder import LabelDecoder

__all__ = ["NeuralNetClassifier"]


# A compromise: on digits 0.1 gains a point over none, on wine it loses two.
_LABEL_SMOOTHING = 0.05

_CLASS_WEIGHT_DOC = """
    class_weight : dict, "balanced" or None, default=None
        Weight of each class, by label. It multiplies ``sample_weight``. Classes that a dict lacks
        weigh 1. "balanced" makes the classes count alike: ``n_samples / (n_classes * count)``,
        where ``sample_weight`` counts, too."""


class NeuralNetClassifier(EncryptedPredictionNet, skorch.NeuralNetClassifier):
    __doc__ = f"""Sparse quantized neural network that classifies encrypted rows.

    A scikit-learn classifier and a skorch net. It trains in the clear. After
    :meth:`compile` it also predicts on ciphertexts, with the same integers.
    {PARAMETERS_DOC.format(own=_CLASS_WEIGHT_DOC)}
    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    class_weight_ : ndarray of shape (n_classes,)
        Weight of each class in the last training.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if ``X`` had names that are all strings.
    n_components_ : int
        Number of principal components that the network encodes.
    module_ : SparseQuantNeuralNetImpl
        The trained network.
    program_ : IntegerProgram
        Its exact integer form, which makes every prediction.
    circuit_ : Circuit
        The encrypted form. Exists once :meth:`compile` was called.
    engine_ : str
        Name of the FHE compiler behind it, "concrete-python" or "concrete-numpy".
    reference_score_, training_score_ : float
        Accuracy on at most 2000 training rows, weighted if they are: before quantization and
        pruning, and afterwards. Both are of the last training that had a float phase, or of
        ``prune``, or of a conversion, where the first is of the given network.
    history_ : skorch.history.History
        Losses and times per epoch.
    {OTHER_PARAMETERS_DOC.format(criterion="torch.nn.CrossEntropyLoss with label smoothing 0.05")}
    See Also
    --------
    NeuralNetRegressor : The same for continuous targets.

    Notes
    -----
    ``criterion__weight`` is another name of ``class_weight``, for an array in the order of
    ``classes_``. The loss itself stays unweighted: class weights become weights of rows.

    During training skorch's own callbacks see labels as indices into ``classes_``.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from cipherlearn import NeuralNetClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = NeuralNetClassifier(
    ...     module__n_hidden_neurons=4,
    ...     module__n_hidden_accum_bits=4,
    ...     module__n_output_accum_bits=6,
    ...     random_state=0,
    ... ).fit(X, y)
    >>> clf.score(X, y) > 0.9
    True
    >>> circuit = clf.compile()
    >>> encrypted = clf.predict(X[:2], execute_in_fhe=True)
    >>> bool((encrypted == clf.predict(X[:2])).all())
    True
    """

    _default_criterion = torch.nn.CrossEntropyLoss

    def __init__(self, module=SparseQuantNeuralNetImpl, *, class_weight=None, **kwargs):
        super().__init__(module, **kwargs)
        self.class_weight = class_weight

    # The shared parameters by name, for scikit-learn and for help().
    __init__.__signature__ = with_parameter(  # type: ignore[attr-defined]
        EncryptedPredictionNet.__init__, "class_weight", None
    )

    @property
    def classes_(self):
        """The labels, sorted."""
        return self.classes_inferred_

    def fit(self, X, y, sample_weight=None):
        """Train on clear data.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Features, in any units.
        y : array-like of shape (n_samples,)
            Labels: strings, integers or booleans.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row. An integer weight is the same as repeating the row.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the data or a parameter is invalid.
        """
        cold = not (self.warm_start and hasattr(self, "program_"))
        return self._fit(X, y, sample_weight, cold)

    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train ``max_epochs`` further epochs, from the present weights.

        The first call runs the whole schedule and learns the ranges of the quantizers.
        Later calls fine-tune the quantized network.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Features.
        y : array-like of shape (n_samples,)
            Labels.
        classes : array-like of shape (n_classes,), default=None
            All labels that any call will see. ``None`` takes those of the first ``y``.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row.

        Returns
        -------
        self
        """
        for name in ("class_weight", "criterion__weight"):
            value = getattr(self, name, None)
            if isinstance(value, str) and value == "balanced":
                raise ValueError(
                    f'partial_fit needs weights that hold for every call. Got {name}="balanced", '
                    "for which one call knows too few rows. Compute the weights on rows that "
                    "represent all, with sklearn.utils.class_weight.compute_class_weight, and "
                    "pass class_weight={label: weight, ...}."
                )
        return self._fit(X, y, sample_weight, cold=not hasattr(self, "program_"), classes=classes)

    def _fit(self, X, y, sample_weight, cold, classes=None, teacher=None):
        if cold:
            self._forget_result()
        X, y = self._validated(X, y, reset=cold, multi_output=True)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        if cold:
            self.classes_inferred_ = np.unique(y if classes is None else classes)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(
                f"y must hold only the classes known since the first fit, {self.classes_}. Got "
                f"also {unknown}. Pass all of them as classes to the first partial_fit."
            )
        indices = np.searchsorted(self.classes_, y)
        weights = check_sample_weight(X, sample_weight)
        self.class_weight_ = weights_of_classes(
            self.class_weight,
            getattr(self, "criterion__weight", None),
            self.classes_,
            indices,
            weights,
        )
        weights = weights * self.class_weight_[indices]
        if not weights.any():
            raise ValueError(
                "At least one row must have a positive weight. Got only classes of weight 0: "
                f"{self.classes_[self.class_weight_ == 0]}."
            )
        X, indices, weights = self._merged(X, indices, weights)
        return self._train(X, indices, weights, cold, teacher)

    _score_name = "accuracy"

    @staticmethod
    def _row_scores(outputs: NDArray, indices: NDArray) -> NDArray:
        return (outputs.argmax(axis=1) == indices).astype(np.float64)

    def _n_outputs(self) -> int:
        return len(self.classes_)

    def _criterion_arguments(self) -> dict[str, Any]:
        kwargs = super()._criterion_arguments()
        # Rows carry it. In the loss it would weigh soft targets again, which are weighted already.
        kwargs.pop("weight", None)
        if self.criterion is None:
            kwargs.setdefault("label_smoothing", _LABEL_SMOOTHING)
        return kwargs

    @refusing(PREDICT_ARGUMENTS)
    def predict(self, X, execute_in_fhe=False, n_jobs=None):
        """Predict the label of each row.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Features, in the clear: this call plays the client and the server.
        execute_in_fhe : bool or "simulate", default=False
            False computes in the clear, True encrypts each row and computes on
            ciphertexts, "simulate" runs the circuit's noise model without encryption.
        n_jobs : int or None, default=None
            Workers that compute on ciphertexts, by joblib: 1 with ``None``, unless a
            ``joblib.parallel_config`` says otherwise. It may name a cluster. Workers
            get no secret key: this process encrypts and decrypts.

        Returns
        -------
        ndarray of shape (n_samples,)

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted, or not compiled when it has to be.
        ValueError
            If ``X`` is invalid.
        """
        if self._is_training_dataset(X, execute_in_fhe):
            # Targets are indices there.
            return super().predict(X)
        outputs = self._decide(X, execute_in_fhe, n_jobs)
        return LabelDecoder(self.classes_).predict(outputs)

    @refusing(PREDICT_ARGUMENTS)
    def predict_proba(self, X, execute_in_fhe=False, n_jobs=None):
        """Predict the probability of each class for each row.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Features.
        execute_in_fhe : bool or "simulate", default=False
            As in :meth:`predict`. The client computes the softmax.
        n_jobs : int or None, default=None
            As in :meth:`predict`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Columns in the order of ``classes_``.
        """
        if self._is_training_dataset(X, execute_in_fhe):
            return super().predict_proba(X)
        outputs = self._decide(X, execute_in_fhe, n_jobs)
        rule = self._probability_rule()
        if rule is None:
            return self._probabilities(outputs)
        return LabelDecoder(self.classes_, rule).probabilities(outputs)
