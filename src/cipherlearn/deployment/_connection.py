"""Connection of a client to an HTTP service whose answers are not trusted."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, quote, unquote, urlsplit

from cipherlearn._checks import check_int, check_token
from cipherlearn._exceptions import MessageError, RemoteError, UnknownKeyError
from cipherlearn._guarded_zip import MAX_BYTES, json_from
from cipherlearn.deployment._messages import HEADER_BYTES, Kind, Message

if TYPE_CHECKING:
    import requests

__all__ = ["Connection", "transient_errors"]

# Largest body or message of an error, and what is read of a body at a time, in bytes.
_LARGEST_ERROR, _CHUNK = 10_000, 1 << 16

# Seconds before the first retry; twice as long before each further one.
_FIRST_PAUSE = 0.25

_Answer = TypeVar("_Answer")


class Connection:
    """Requests to one service, and answers of a bounded size.

    The token or password goes to the service's address alone, and into no message.

    Parameters
    ----------
    url : str
        Address of the service, with or without user and password.
    token : str or None
        Bearer token.
    verify : bool, str or path
        Whether certificates are checked, or a PEM file to check them against.
    timeout : float
        Seconds to wait for the service to answer, or to go on answering. It is no limit of a whole
        answer: a service that sends a byte now and then, or headers for ever, is waited for.
    n_retries : int
        How often a request is tried again when the service cannot be reached or is busy.

    Attributes
    ----------
    url : str
        Without user and password.

    Raises
    ------
    ValueError
        If the address is not of HTTP or HTTPS, or a header cannot hold the token.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        verify: bool | str | os.PathLike[str],
        timeout: float,
        n_retries: int,
    ) -> None:
        try:
            import requests
        except ImportError as error:
            raise ImportError(
                "RemoteModel needs requests: pip install 'cipherlearn[client]'"
            ) from error
        address = _checked_address(url)
        host = address.netloc.rpartition("@")[2]
        self.url = f"{address.scheme}://{host}{address.path.rstrip('/')}"
        self._verify = verify if isinstance(verify, bool) else os.fspath(verify)
        self._timeout = timeout
        self._n_retries = check_int("n_retries", n_retries, 0)
        self._session = requests.Session()
        adapter: Any
        for adapter in self._session.adapters.values():
            vars(adapter)["build_response"] = partial(_without_cookies, adapter.build_response)
        # A session reads the whole body of a redirect, even of one that it does not follow.
        vars(self._session)["get_redirect_target"] = lambda response: None
        # Results are binary, and proxies must not compress them.
        self._session.headers["Accept-Encoding"] = "identity"
        self._hide = _Redaction()
        # A session's auth, since requests would replace a header by what a .netrc file says.
        if token is not None:
            self._session.auth = partial(_authorize, f"Bearer {check_token(token)}")
            self._hide = _Redaction(token)
        elif address.username is not None:
            user, password = unquote(address.username), unquote(address.password or "")
            encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
            self._session.auth = partial(_authorize, f"Basic {encoded}")
            # Some services take a token as a user without a password.
            self._hide = _Redaction(password or user, encoded.rstrip("="))

    def close(self) -> None:
        """Close the connections to the service."""
        self._session.close()

    def get(self, path: str) -> bytes:
        """Get a file."""

        def attempt() -> bytes:
            with self.request("GET", path) as response:
                if response.headers.get("Content-Encoding", "identity") != "identity":
                    raise RemoteError(
                        f"The service at {self.url} must send files as they are. It compressed "
                        f"{path}, or a proxy did."
                    )
                return _read_body(response.raw, MAX_BYTES)

        return self._retried(attempt)

    def put(self, path: str, body: bytes) -> None:
        """Put a file."""
        self._retried(lambda: self.request("PUT", path, body).close())

    def request(self, method: str, path: str, body: bytes | None = None) -> requests.Response:
        """Make one request, and return an answer that is no refusal, to be read and closed.

        Raises
        ------
        RemoteError
            If the service refuses it.
        UnknownKeyError
            If it lacks the keys.
        Exception
            One of :func:`transient_errors`.
        """
        from requests.exceptions import SSLError

        try:
            response = self._session.request(
                method,
                self.url + path,
                data=body,
                timeout=self._timeout,
                stream=True,
                # Another host would get what is meant for this one.
                allow_redirects=False,
                # Environment variables would replace the session's setting.
                verify=self._verify,
            )
        except SSLError as error:
            raise RemoteError(
                f"The service at {self.url} must show a certificate that is known. {error}. Name "
                "who vouches for it with verify, as a PEM file."
            ) from error
        _refuse_reading_all(response.raw, self.url)
        if 200 <= response.status_code < 300:
            return response
        with response:
            reason = _reason(response, self._hide)
        if response.status_code == 404 and method == "POST":
            raise UnknownKeyError(reason)
        if response.status_code == 503:
            raise _BusyError(reason)
        raise RemoteError(
            f"{method} {self.url}{path} was refused with status {response.status_code}: {reason}"
        )

    def read_message(self, stream: Any, most: int) -> bytes:
        """Read one message of a response, of at most so many bytes, or raise the error in it."""
        header = _read_exactly(stream, HEADER_BYTES)
        n_bytes = Message.length(header)
        most = max(most, _LARGEST_ERROR)
        if n_bytes > most:
            raise MessageError(f"A result has at most {most} bytes. The service sends {n_bytes}.")
        message = header + _read_exactly(stream, n_bytes - HEADER_BYTES)
        if Message.kind_of(header) != Kind.ERROR:
            return message
        status, detail = _read_error(Message.from_bytes(message, Kind.ERROR).payload, self._hide)
        kind = {404: UnknownKeyError, 503: _BusyError}.get(status, RemoteError)
        raise kind(f"The service stopped midway: {detail}")

    def _retried(self, attempt: Callable[[], _Answer]) -> _Answer:
        n_failures = 0
        while True:
            try:
                return attempt()
            except transient_errors() as error:
                n_failures = self.after_failure(n_failures, error)

    def after_failure(self, n_failures: int, error: Exception) -> int:
        """Pause before another try, or raise RemoteError if there were enough."""
        # An invalid address stays invalid.
        if n_failures == self._n_retries or isinstance(error, ValueError):
            # Without the cause, which may quote, and cut, what the service sent back.
            raise RemoteError(
                f"The service at {self.url} did not answer in {n_failures + 1} tries. The last "
                f"said: {self._hide(_cause(error))}"
            ) from None
        time.sleep(_FIRST_PAUSE * 2**n_failures)
        return n_failures + 1


def transient_errors() -> tuple[type[Exception], ...]:
    """Give the errors after which another try may succeed."""
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    return (RequestException, HTTPError, _BusyError, _CutError)


class _BusyError(Exception):
    """The service is busy, and asks for another try later."""


class _CutError(Exception):
    """An answer ended early."""


def _checked_address(url: str) -> SplitResult:
    """Split an address, or raise ValueError, without naming a password, if it is not of HTTP."""
    try:
        address = urlsplit(url)
        valid = address.scheme in ("http", "https") and address.hostname and address.port != 0
    except ValueError:
        valid = False
    if not valid or not url.isprintable() or " " in url:
        # Without the reason, whose message may have the password.
        raise ValueError(
            "The address of a service must be such as https://example.org:8000. Got another."
        ) from None
    return address


def _authorize(credentials: str, request: Any) -> Any:
    request.headers["Authorization"] = credentials
    return request


def _without_cookies(build: Callable[..., Any], request: Any, answer: Any) -> Any:
    """Build a response of requests, whose sessions would keep cookies and send them for ever."""
    # The answer of http.client, from which requests reads cookies, in urllib3 1.26 to 2.8.
    if (original := getattr(answer, "_original_response", None)) is not None:
        for name in ("Set-Cookie", "Set-Cookie2"):
            del original.msg[name]
    return build(request, answer)


class _Redaction:
    """Function that replaces secrets by stars in a text, as a service may send them back.

    Apply it before a text is cut or escaped, which would leave parts of a secret or change it.

    Parameters
    ----------
    *secrets : str
        Empty ones do not count.
    """

    def __init__(self, *secrets: str) -> None:
        forms = {form for secret in secrets for form in (secret, quote(secret, safe="")) if form}
        # Longer ones first, since others may be parts of them.
        self._forms = sorted(forms, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, "***")
        return text


def _cause(error: BaseException) -> str:
    """Return the operating system's message, such as "Connection refused", or else the error's."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error)


def _reason(response: requests.Response, hide: Callable[[str], str]) -> str:
    """Return the reason of a refusal: the ``detail`` of a JSON body, or else the status line's."""
    if "Location" in response.headers:
        return (
            f"it redirects to {hide(response.headers['Location'])!r:.200}, which is not followed. "
            "Give that address if you trust it."
        )
    try:
        detail = json_from(_read_body(response.raw, _LARGEST_ERROR))["detail"]
    except (KeyError, RemoteError, TypeError, ValueError):
        return f"{hide(str(response.reason)):.100}"
    return f"{hide(str(detail)):.1000}"


def _read_error(payload: bytes, hide: Callable[[str], str]) -> tuple[int, str]:
    """Return status and detail of an error."""
    try:
        error = json_from(payload)
        return int(error["status"]), f"{hide(str(error['detail'])):.1000}"
    except (KeyError, OverflowError, TypeError, ValueError):
        # Without the reason, which may quote a secret that the service sent back.
        raise MessageError(
            "An error of a service must have a status and a detail. "
            f"Got {hide(payload.decode('latin-1'))!r:.100}."
        ) from None


class _BoundedReads:
    """File of which no more is read than a number of bytes.

    ``http.client`` reads a chunk of -1 bytes to the end of the file.
    """

    def __init__(self, file: Any, url: str) -> None:
        self._file, self._url = file, url

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, n_bytes: int | None = None) -> bytes:
        if n_bytes is None or n_bytes < 0:
            raise RemoteError(f"The service at {self._url} must send chunks of at least 0 bytes.")
        part: bytes = self._file.read(n_bytes)
        return part


def _refuse_reading_all(stream: Any, url: str) -> None:
    """Bound the reads of an answer of urllib3 1.26 to 2.8, which keeps http.client's in ``_fp``."""
    answer = stream._fp
    # Of an answer without a body it is closed already.
    if getattr(answer, "fp", None) is not None:
        answer.fp = _BoundedReads(answer.fp, url)


def _read_body(stream: Any, most: int) -> bytes:
    """Read a body as it was sent, or raise RemoteError if it has more than so many bytes."""
    body = bytearray()
    while part := stream.read(_CHUNK):
        body += part
        if len(body) > most:
            raise RemoteError(f"A service sends at most {most} bytes here. This one sends more.")
    return bytes(body)


def _read_exactly(stream: Any, n_bytes: int) -> bytes:
    content = bytearray()
    while len(content) < n_bytes:
        # http.client keeps an object for each chunk of what is read at once.
        part = stream.read(min(n_bytes - len(content), _CHUNK))
        if not part:
            raise _CutError("the answer ended early")
        content += part
    return bytes(content)
