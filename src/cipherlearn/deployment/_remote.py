"""Prediction by a model on an HTTP service."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cipherlearn._exceptions import ArtefactError, UnknownKeyError
from cipherlearn._progress import stage
from cipherlearn.deployment._client import FHEClient
from cipherlearn.deployment._connection import Connection, transient_errors

__all__ = ["RemoteModel"]

# Batches of one request: many make the cost of a request small, few keep its body small.
_BATCHES_PER_REQUEST = 16


class RemoteModel:
    """Model on a remote ``cipherlearn serve``, with scikit-learn's prediction methods.

    Rows are encrypted and predictions decrypted here, and keys never leave. The service is asked
    for its ``client.zip``, and given the evaluation keys when it does not have them.

    Parameters
    ----------
    url : str
        Where the service is, such as ``"https://example.org:8000"``. User and password in it are
        used where there is no token, and are not shown.
    keys : str, path or None, default=None
        File of the secret keys, made if it does not exist. ``None`` makes keys that are not kept.
    passphrase : str or None, default=None
        Passphrase of that file.
    model_id : str or None, default=None
        The model that is expected, as ``cipherlearn inspect client.zip`` shows it. ``None``
        accepts any model.
    token : str or None, default=None
        The service's bearer token. It is sent to ``url`` alone: redirects are not followed.
    trusted : sequence of str, default=()
        As for :class:`FHEClient`.
    verify : bool, str or path, default=True
        Certificates that an HTTPS service is checked against: those of the system, or those in a
        PEM file. ``False`` checks nothing.
    timeout : float, default=150
        Seconds to wait for the service to answer, or to go on answering. It is no limit of a whole
        answer: a service that sends a byte now and then, or headers for ever, is waited for.
    n_retries : int, default=5
        How often a request is tried again when the service cannot be reached or is busy. To give it
        the evaluation keys that it lacks is not one of these times.
    verbose : bool or int, default=False
        Whether to show progress.

    Attributes
    ----------
    client_ : FHEClient
        Client that encrypts and decrypts.
    classes_ : ndarray of shape (n_classes,)
        Labels. Only of classifiers.

    Raises
    ------
    ValueError
        If the address is not of HTTP or HTTPS, or a header cannot hold the token.
    RemoteError
        If the service cannot be reached, or refuses. Its reason is in the message.
    ArtefactError
        If the service's artefact is damaged, insecure or of another model, or the key file does
        not fit it.

    Examples
    --------
    >>> from cipherlearn.deployment import RemoteModel
    >>> model = RemoteModel("http://localhost:8000", keys="iris.keys")  # doctest: +SKIP
    >>> model.predict(X)  # doctest: +SKIP
    array(['setosa', 'virginica'], dtype=object)
    """

    def __init__(
        self,
        url: str,
        keys: str | os.PathLike[str] | None = None,
        *,
        passphrase: str | None = None,
        model_id: str | None = None,
        token: str | None = None,
        trusted: Sequence[str] = (),
        verify: bool | str | os.PathLike[str] = True,
        timeout: float = 150,
        n_retries: int = 5,
        verbose: bool | int = False,
    ) -> None:
        self.verbose = verbose
        self._connection = Connection(url, token, verify, timeout, n_retries)
        self.url = self._connection.url
        self.client_ = FHEClient.from_bytes(self._connection.get("/v1/client.zip"), trusted)
        if model_id is not None and model_id != self.client_.model_id:
            raise ArtefactError(
                f"The service at {self.url} must have the model {model_id}. It has "
                f"{self.client_.model_id}."
            )
        if hasattr(self.client_, "classes_"):
            self.classes_ = self.client_.classes_
        self.client_.open_keys(keys, passphrase, verbose)

    def __repr__(self) -> str:
        return f"<RemoteModel: {self.url}, {self.client_._summary()}>"

    def close(self) -> None:
        """Close the connections to the service."""
        self._connection.close()

    def __enter__(self) -> RemoteModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def upload_keys(self) -> None:
        """Give the service the evaluation keys. ``predict`` does it when they are missing."""
        path, keys = f"/v1/keys/{self.client_.key_id}", self.client_.evaluation_keys()
        with stage("Uploading evaluation keys", self.verbose):
            self._connection.put(path, keys)

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict labels or targets of encrypted rows.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features)

        Returns
        -------
        ndarray of shape (n_rows,) or (n_rows, n_outputs)

        Raises
        ------
        ValueError
            If ``X`` is invalid.
        RemoteError
            If the service cannot be reached, or refuses.
        """
        return self.client_.predict(X, self.evaluate, self.verbose)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Predict the probability of each class for encrypted rows.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features)

        Returns
        -------
        ndarray of shape (n_rows, n_classes)
        """
        return self.client_.predict_proba(X, self.evaluate, self.verbose)

    def score(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Compute the accuracy or R² on encrypted rows, as scikit-learn does.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_rows, n_features)
        y : array-like of shape (n_rows,) or (n_rows, n_outputs)
        sample_weight : array-like of shape (n_rows,), default=None

        Returns
        -------
        float
        """
        from sklearn.metrics import accuracy_score, r2_score

        is_classifier = self.client_.description["estimator"] == "classifier"
        score = accuracy_score if is_classifier else r2_score
        return float(score(y, self.predict(X), sample_weight=sample_weight))

    def evaluate(self, ciphertexts: Iterable[bytes]) -> Iterator[bytes]:
        """Have ciphertexts evaluated by the service: a transport for a client."""
        connection, largest = self._connection, self.client_.message_bytes("result")
        ciphertexts = iter(ciphertexts)
        while batch := list(islice(ciphertexts, _BATCHES_PER_REQUEST)):
            n_failures, has_uploaded = 0, False
            while batch:
                try:
                    with connection.request("POST", "/v1/predict", b"".join(batch)) as response:
                        while batch:
                            result = connection.read_message(response.raw, largest)
                            # Do not request again what has arrived.
                            del batch[0]
                            has_uploaded = False
                            yield result
                        # The connection is used again only if the answer was read to its end.
                        response.raw.read(1)
                except UnknownKeyError as error:
                    # The service has not seen them, or has dropped them for others'. That is no
                    # failure, unless they are missing again at once.
                    if has_uploaded:
                        n_failures = connection.after_failure(n_failures, error)
                    self.upload_keys()
                    has_uploaded = True
                except transient_errors() as error:
                    n_failures = connection.after_failure(n_failures, error)
