"""Refusal of requests by the name of the service, the origin of a page, and the token."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from cipherlearn.deployment.service._connections import ip_from
from cipherlearn.deployment.service._refusals import refusal
from cipherlearn.deployment.service._tokens import Tokens

__all__ = ["Access"]

# Paths that need no token, for whoever watches over services.
_OPEN = ("/health",)

# Methods that change nothing. A page of another origin cannot read their answers.
_SAFE = ("GET", "HEAD")


class Access:
    """ASGI middleware that refuses requests of strangers.

    Without a token, a page in a browser could reach a service in its network, by a name of its
    own for the service's address (DNS rebinding), or blindly.

    Parameters
    ----------
    app : ASGI application
    tokens : Tokens
    hosts : iterable of str
        Names of the service. If there are none, and a token is needed, any name will do.
    """

    def __init__(self, app: Any, tokens: Tokens, hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._tokens = tokens
        named = {host.lower() for host in hosts}
        self._is_any_host = "*" in named or (tokens.are_needed() and not named)
        self._hosts = named | {"localhost", socket.gethostname().lower()}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle a connection."""
        refused = self._refuse(scope) if scope["type"] == "http" else None
        await (refused or self._app)(scope, receive, send)

    def _refuse(self, scope: Any) -> JSONResponse | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_known(host):
            return refusal(
                400,
                f"The Host must be an address or a known name of this service. Got {host!r:.80}. "
                "Start it with --allowed-host NAME.",
            )
        if scope["method"] not in _SAFE and origin not in (
            None,
            f"http://{host}",
            f"https://{host}",
        ):
            return refusal(403, "Pages of other origins must not ask.")
        if not self._tokens.are_needed() or scope["path"] in _OPEN:
            return None
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._tokens.accept(token.strip()):
            return None
        return refusal(401, "A valid bearer token is needed.", {"WWW-Authenticate": "Bearer"})

    def _is_known(self, host: str) -> bool:
        # Browsers always name a host.
        if self._is_any_host or not host:
            return True
        try:
            name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
        except ValueError:
            return False
        return name in self._hosts or ip_from(name) is not None
