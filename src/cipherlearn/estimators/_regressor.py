"""Regressor of encrypted rows."""

from __future__ import annotations

import numpy as np
import skorch
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import column_or_1d

from cipherlearn.estimators._base import EncryptedPredictionNet
from cipherlearn.estimators._names import PREDICT_ARGUMENTS, refusing
from cipherlearn.estimators._parameter_docs import OTHER_PARAMETERS_DOC, PARAMETERS_DOC
from cipherlearn.estimators._skorch import check_sample_weight
from cipherlearn.program._decoder import TargetDecoder
from cipherlearn.training._float_networks import Standardized

__all__ = ["NeuralNetRegressor"]


class NeuralNetRegressor(EncryptedPredictionNet, skorch.NeuralNetRegressor):
    __doc__ = f"""Sparse quantized neural network that predicts continuous targets.

    A scikit-learn regressor and a skorch net, for one target or several. It trains in the
    clear and scales its targets itself. After :meth:`compile` it also predicts on
    ciphertexts, with the same integers.
    {PARAMETERS_DOC.format(own="")}
    Attributes
    ----------
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if ``X`` had names that are all strings.
    target_mean_, target_scale_ : ndarray of shape (n_outputs,)
        Mean and standard deviation of the training targets.
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
        R² on at most 2000 training rows, weighted if they are: before quantization and
        pruning, and afterwards. Both are of the last training that had a float phase, or of
        ``prune``, or of a conversion, where the first is of the given network.
    history_ : skorch.history.History
        Losses and times per epoch.
    {OTHER_PARAMETERS_DOC.format(criterion="torch.nn.MSELoss")}
    See Also
    --------
    NeuralNetClassifier : The same for labels.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from cipherlearn import NeuralNetRegressor
    >>> X, y = make_regression(200, 3, random_state=0)
    >>> reg = NeuralNetRegressor(max_epochs=100, random_state=0).fit(X, y)
    >>> reg.score(X, y) > 0.5
    True
    """

    _default_criterion = torch.nn.MSELoss

    def fit(self, X, y, sample_weight=None):
        """Train on clear data.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Features, in any units.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets, in any units.
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

        The first call runs the whole schedule and learns the ranges of the quantizers and
        the scale of the targets. Later calls fine-tune the quantized network.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Features.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets.
        classes : None
            Not used. skorch gives every net this argument.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row.

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, cold=not hasattr(self, "program_"))

    def _fit(self, X, y, sample_weight, cold, teacher=None):
        if cold:
            self._forget_result()
        X, y = self._validated(X, y, reset=cold, multi_output=True, y_numeric=True)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        targets = y.reshape(len(y), -1).astype(np.float64)
        weights = check_sample_weight(X, sample_weight)
        X, targets, weights = self._merged(X, targets, weights)
        if cold:
            self.target_mean_ = np.average(targets, axis=0, weights=weights)
            variance = np.average((targets - self.target_mean_) ** 2, axis=0, weights=weights)
            self.target_scale_ = np.where(variance > 0, np.sqrt(variance), 1.0)
            self._target_is_1d = y.ndim == 1
            if teacher is not None:
                teacher = Standardized(teacher, self.target_mean_, self.target_scale_)
        elif targets.shape[1] != len(self.target_mean_):
            raise ValueError(
                f"y must have the {len(self.target_mean_)} target(s) of the first fit. "
                f"Got {targets.shape[1]}."
            )
        standardized = ((targets - self.target_mean_) / self.target_scale_).astype(np.float32)
        return self._train(X, standardized, weights, cold, teacher)

    _score_name = "R²"

    @staticmethod
    def _row_scores(outputs: NDArray, standardized: NDArray) -> NDArray:
        return 1 - np.square(outputs - standardized).mean(axis=1)

    def _n_outputs(self) -> int:
        return len(self.target_mean_)

    @refusing(PREDICT_ARGUMENTS)
    def predict(self, X, execute_in_fhe=False, n_jobs=None):
        """Predict the target of each row.

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
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            In the units of the training targets.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted, or not compiled when it has to be.
        ValueError
            If ``X`` is invalid.
        """
        if self._is_training_dataset(X, execute_in_fhe):
            # Targets are standardized there.
            return self.forward(X).numpy()
        outputs = self._decide(X, execute_in_fhe, n_jobs)
        decoder = TargetDecoder(self.target_mean_, self.target_scale_, self._target_is_1d)
        return decoder.predict(outputs)

    @property
    def predict_proba(self):
        """Absent: skorch gives every net this method, but a regressor has no classes."""
        raise AttributeError("NeuralNetRegressor has no predict_proba.")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
