"""Service that gives the responses it is told to, for tests of clients."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import chain, repeat


class Scripted:
    """A service that gives the next of its responses to each request, and keeps the requests.

    Parameters
    ----------
    *responses : bytes or iterable of bytes
        The parts of one may never end.
    then : callable or None
        Gives the response to each further request, as bytes. The service ends without it.
    """

    def __init__(
        self, *responses: bytes | Iterable[bytes], then: Callable[[], bytes] | None = None
    ) -> None:
        self.requests: list[bytes] = []
        self._responses = chain(responses, repeat(then) if then else ())
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        for response in self._responses:
            with suppress(OSError):
                connection, _ = self._listener.accept()
                with connection:
                    self.requests.append(_request(connection))
                    content = response() if callable(response) else response
                    for part in [content] if isinstance(content, bytes) else content:
                        connection.sendall(part)
        self._listener.close()


def http_response(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """Write a response. In the names of headers, _ stands for -."""
    lines = [f"HTTP/1.1 {status} Reason", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def _request(connection: socket.socket) -> bytes:
    """Read a request, or raise ConnectionError if the client goes away before its end."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _some(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    while length and len(body) < int(length[1]):
        body += _some(connection)
    return head + b"\r\n\r\n" + body


def _some(connection: socket.socket) -> bytes:
    part = connection.recv(1 << 16)
    if not part:
        raise ConnectionError("the client went away")
    return part
