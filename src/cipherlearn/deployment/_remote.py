"""Prediction by a model on an HTTP service."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cipherlearn._checks import check_int, check_token
from cipherlearn._exceptions import ArtefactError, MessageError, RemoteError, UnknownKeyError
from cipherlearn._guarded_zip import MAX_BYTES, json_from
from cipherlearn._progress import stage
from cipherlearn.deployment._client import FHEClient
from cipherlearn.deployment._messages import HEADER_BYTES, Kind, Message

if TYPE_CHECKING:
    import requests

__all__ = ["RemoteModel"]

# Batches of one request: many make the cost of a request small, few keep its body small.
_BATCHES_PER_REQUEST = 16

# Largest body or message of an error, and what is read of a body at a time, in bytes.
_LARGEST_ERROR, _CHUNK = 10_000, 1 << 16

# Seconds before the first retry; twice as long before each further one.
_FIRST_PAUSE = 0.25

_Answer = TypeVar("_Answer")


class RemoteModel:
    """Model on a remote ``cipherlearn serve``, with scikit-learn's prediction methods.

    Rows are encrypted and predictions decrypted here, and keys never leave. The service is asked
    for its ``client.zip``, and given the evaluation keys when it does not have them.

    Parameters
    ----------
    url : str
        Where the service is, such as ``"https://example.org:8000"``.
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
        Seconds to wait for the service to answer, or to go on answering.
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
        If the address is none of HTTP, or the token cannot be sent.
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
        try:
            import requests
        except ImportError as error:
            raise ImportError(
                "RemoteModel needs requests: pip install 'cipherlearn[client]'"
            ) from error
        self.url = _checked_address(url)
        self.timeout = timeout
        self.n_retries = check_int("n_retries", n_retries, 0)
        self.verbose = verbose
        self._session = requests.Session()
        self._verify = verify if isinstance(verify, bool) else os.fspath(verify)
        # Results are binary, and proxies must not compress them.
        self._session.headers["Accept-Encoding"] = "identity"
        if token is not None:
            # A .netrc file would replace the header.
            self._session.auth = partial(_authorize, check_token(token))
        self.client_ = FHEClient.from_bytes(self._get("/v1/client.zip"), trusted)
        if model_id is not None and model_id != self.client_.model_id:
            raise ArtefactError(
                f"The service at {self._shown} must have the model {model_id}. It has "
                f"{self.client_.model_id}."
            )
        if hasattr(self.client_, "classes_"):
            self.classes_ = self.client_.classes_
        self._largest = max(self.client_.message_bytes("result"), _LARGEST_ERROR)
        self.client_.open_keys(keys, passphrase, verbose)

    def __repr__(self) -> str:
        return f"<RemoteModel: {self._shown}, {self.client_._summary()}>"

    @property
    def _shown(self) -> str:
        """Address without a password."""
        address = urlsplit(self.url)
        return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"

    def close(self) -> None:
        """Close the connections to the service."""
        self._session.close()

    def __enter__(self) -> RemoteModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def upload_keys(self) -> None:
        """Give the service the evaluation keys. ``predict`` does it when they are missing."""
        path, keys = f"/v1/keys/{self.client_.key_id}", self.client_.evaluation_keys()
        with stage("Uploading evaluation keys", self.verbose):
            self._retried(lambda: self._request("PUT", path, keys).close())

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
        ciphertexts = iter(ciphertexts)
        while batch := list(islice(ciphertexts, _BATCHES_PER_REQUEST)):
            n_failures, has_uploaded = 0, False
            while batch:
                try:
                    with self._request("POST", "/v1/predict", b"".join(batch)) as response:
                        while batch:
                            result = _read_message(response.raw, self._largest)
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
                        n_failures = self._after_failure(n_failures, error)
                    self.upload_keys()
                    has_uploaded = True
                except _transient() as error:
                    n_failures = self._after_failure(n_failures, error)

    # ------------------------------------------------------------------ HTTP

    def _get(self, path: str) -> bytes:
        def get() -> bytes:
            with self._request("GET", path) as response:
                if response.headers.get("Content-Encoding", "identity") != "identity":
                    raise RemoteError(
                        f"The service at {self._shown} must send files as they are. It compressed "
                        f"{path}, or a proxy did."
                    )
                return _read_body(response.raw, MAX_BYTES)

        return self._retried(get)

    def _request(self, method: str, path: str, body: bytes | None = None) -> requests.Response:
        from requests.exceptions import SSLError

        try:
            response = self._session.request(
                method,
                self.url + path,
                data=body,
                timeout=self.timeout,
                stream=True,
                # To another host, ciphertexts would go with it.
                allow_redirects=False,
                # Environment variables would replace the session's setting.
                verify=self._verify,
            )
        except SSLError as error:
            raise RemoteError(
                f"The service at {self._shown} must show a certificate that is known. {error}. "
                "Name who vouches for it with verify, as a PEM file."
            ) from error
        if 200 <= response.status_code < 300:
            return response
        with response:
            reason = _reason(response)
        if response.status_code == 404 and method == "POST":
            raise UnknownKeyError(reason)
        if response.status_code == 503:
            raise _BusyError(reason)
        raise RemoteError(
            f"{method} {self._shown}{path} was refused with status {response.status_code}: {reason}"
        )

    def _retried(self, attempt: Callable[[], _Answer]) -> _Answer:
        n_failures = 0
        while True:
            try:
                return attempt()
            except _transient() as error:
                n_failures = self._after_failure(n_failures, error)

    def _after_failure(self, n_failures: int, error: Exception) -> int:
        """Pause before another try, or raise RemoteError if there were enough."""
        # An invalid address stays invalid.
        if n_failures == self.n_retries or isinstance(error, ValueError):
            raise RemoteError(
                f"The service at {self._shown} did not answer in {n_failures + 1} tries. The last "
                f"said: {_cause(error)}"
            ) from error
        time.sleep(_FIRST_PAUSE * 2**n_failures)
        return n_failures + 1


def _transient() -> tuple[type[Exception], ...]:
    """Errors after which another try may succeed."""
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    return (RequestException, HTTPError, _BusyError, _CutError)


def _cause(error: BaseException) -> str:
    """Return the operating system's message, such as "Connection refused", or else the error's."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error)


class _BusyError(Exception):
    """The service is busy, and asks for another try later."""


class _CutError(Exception):
    """An answer ended early."""


def _checked_address(url: str) -> str:
    """Return an address, or raise ValueError, without a password in it, if it is none of HTTP."""
    try:
        address = urlsplit(url)
        valid = address.scheme in ("http", "https") and address.hostname and address.port != 0
    except ValueError:
        valid = False
    if not valid or not url.isprintable() or " " in url:
        raise ValueError(
            "The address of a service must be such as https://example.org:8000. Got another."
        )
    return url.rstrip("/")


def _reason(response: requests.Response) -> str:
    if "Location" in response.headers:
        return (
            f"it redirects to {response.headers['Location']!r:.200}, which is not followed. Give "
            "that address if you trust it."
        )
    try:
        return f"{json_from(_read_body(response.raw, _LARGEST_ERROR))['detail']!s:.1000}"
    except (KeyError, RemoteError, TypeError, ValueError):
        return f"{response.reason:.100}"


def _authorize(token: str, request: Any) -> Any:
    request.headers["Authorization"] = f"Bearer {token}"
    return request


def _read_message(stream: Any, largest: int) -> bytes:
    """Read one message of a response, or raise the error that it holds."""
    header = _read_exactly(stream, HEADER_BYTES)
    n_bytes = Message.length(header)
    if n_bytes > largest:
        raise MessageError(f"A result has at most {largest} bytes. The service sends {n_bytes}.")
    message = header + _read_exactly(stream, n_bytes - HEADER_BYTES)
    if Message.kind_of(header) != Kind.ERROR:
        return message
    payload = Message.from_bytes(message, Kind.ERROR).payload
    try:
        error = json_from(payload)
        status, detail = int(error["status"]), str(error["detail"])
    except (KeyError, OverflowError, TypeError, ValueError) as reason:
        raise MessageError(
            f"An error of a service must say its status. Got {payload!r:.100}"
        ) from reason
    kind = {404: UnknownKeyError, 503: _BusyError}.get(status, RemoteError)
    raise kind(f"The service stopped midway: {detail:.1000}")


def _read_body(stream: Any, most: int) -> bytes:
    """Read a body as it was sent, or raise RemoteError if it has more than so many bytes."""
    body = bytearray()
    while part := stream.read(_CHUNK):
        body += part
        if len(body) > most:
            raise RemoteError(f"A service sends at most {most} bytes here. This one sends more.")
    return bytes(body)


def _read_exactly(stream: Any, n_bytes: int) -> bytes:
    parts = []
    while n_bytes:
        part = stream.read(n_bytes)
        if not part:
            raise _CutError("the answer ended early")
        parts.append(part)
        n_bytes -= len(part)
    return b"".join(parts)
