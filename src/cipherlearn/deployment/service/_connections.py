"""Limits on connections: places, and time for what a client has to do.

uvicorn waits without end for a TLS handshake, for the head of a request, for a reader of its
answer, and for the rest of a body that was answered early.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from cipherlearn._checks import check_int

__all__ = ["ConnectionLimits", "Connections", "Door", "door_of", "peer_of", "watched"]

# Where a request's scope holds its connection.
_NAME = "cipherlearn_connection"


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits on the connections of a service.

    Parameters
    ----------
    max_connections : int, default=500
        Connections at a time. For a further one, the one that has waited longest for its client
        is closed.
    max_peer_connections : int, default=100
        Connections of one peer: an address, or an IPv6 network of 64 bits.
    header_timeout : int, default=20
        Seconds for the head of a request, from the start of a connection, with its TLS handshake,
        or from an answer.
    answer_timeout : int, default=300
        Seconds for which an answer may wait for its reader, all in all.
    proxies : sequence of str, default=()
        Addresses or networks of reverse proxies, which may have all connections.
    """

    max_connections: int = 500
    max_peer_connections: int = 100
    header_timeout: int = 20
    answer_timeout: int = 300
    proxies: Sequence[str] = ()

    def __post_init__(self) -> None:
        for each in fields(self):
            if each.type == "int":
                check_int(each.name, getattr(self, each.name), 1)
        for proxy in self.proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError as error:
                raise ValueError(
                    "A proxy must be an IP address, or a network such as 10.0.0.0/8. "
                    f"Got {proxy!r}."
                ) from error


def ip_from(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Parse an IP address, or return None if the text is another name."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def peer_of(address: str) -> str:
    """Return the address or, of IPv6, the network that one client may have as a whole."""
    ip = ip_from(address)
    if ip is None or ip.version == 4:
        return address
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))


class Connections:
    """All connections of a service, and those that wait for their client.

    Parameters
    ----------
    limits : ConnectionLimits
    on_drop : callable
        Called whenever a connection is closed because of a limit.
    """

    def __init__(self, limits: ConnectionLimits, on_drop: Callable[[], object]) -> None:
        self.limits = limits
        self.on_drop = on_drop
        self._proxies = [ipaddress.ip_network(proxy) for proxy in limits.proxies]
        self._doors: Counter[str] = Counter()  # of each peer
        # The longest first.
        self._waiting: dict[Door, None] = {}

    def add(self, door: Door) -> bool:
        """Make a place for a connection, or return False if there can be none."""
        is_full = self._doors.total() >= self.limits.max_connections
        has_its_share = self._doors[door.peer] >= self.limits.max_peer_connections
        if is_full or (has_its_share and not door.is_proxy):
            # Who has its share takes from nobody else.
            of_all = not has_its_share or door.is_proxy
            waiting = (each for each in self._waiting if of_all or each.peer == door.peer)
            longest = next(waiting, None)
            if longest is None:
                return False
            longest.drop()
        self._doors[door.peer] += 1
        return True

    def remove(self, door: Door) -> None:
        """Free the place of a connection."""
        self._waiting.pop(door, None)
        self._doors -= Counter({door.peer: 1})  # forgets who has none

    def set_waiting(self, door: Door, is_waiting: bool) -> None:
        """Note that a connection begins to wait for its client, or that it need not."""
        self._waiting.pop(door, None)
        if is_waiting:
            self._waiting[door] = None

    def is_proxy(self, address: str) -> bool:
        """Return whether an address is a reverse proxy's."""
        ip = ip_from(address)
        return ip is not None and any(ip in network for network in self._proxies)


class Door(asyncio.Protocol):
    """A protocol that lets a connection in to another, and closes it when it keeps waiting.

    Parameters
    ----------
    make_protocol : callable
        Makes the protocol of HTTP, such as ``PacedProtocol``. Takes ``app_state`` and the
        ``arguments``.
    connections : Connections
    context : ssl.SSLContext or None
        Settings of TLS.
    app_state : dict
        State of each request's scope.
    **arguments : object
    """

    def __init__(
        self,
        make_protocol: Callable[..., Any],
        connections: Connections,
        context: ssl.SSLContext | None,
        *,
        app_state: dict[str, Any],
        **arguments: Any,
    ) -> None:
        self._make_protocol = partial(
            make_protocol, app_state={**app_state, _NAME: self}, **arguments
        )
        self._connections = connections
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._inner: Any = None
        self._early = b""
        self._is_in = False
        self._timer: asyncio.TimerHandle | None = None
        self._n_requests = 0
        self._answer_seconds = 0.0
        self._paused_since: float | None = None
        self.peer = ""
        self.is_proxy = False

    # ------------------------------------------------------------------ asyncio's protocol

    def connection_made(self, transport: Any) -> None:
        """Let the connection in, or close it if there is no place."""
        self._transport = transport
        address = str((transport.get_extra_info("peername") or ("",))[0])
        self.peer, self.is_proxy = peer_of(address), self._connections.is_proxy(address)
        if not self._connections.add(self):
            self._connections.on_drop()
            transport.abort()
            return
        self._is_in = True
        self._update()
        if self._context is None:
            self._open(transport)
        else:
            self._handshake = self._loop.create_task(self._start_tls(self._context))

    def data_received(self, data: bytes) -> None:
        """Hand on what was received."""
        if self._inner is None:
            self._early += data
        else:
            self._inner.data_received(data)

    def eof_received(self) -> Any:
        """Hand on the end of what is received."""
        return None if self._inner is None else self._inner.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        """Free the place."""
        self._leave()
        if self._inner is not None:
            self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        """Note that the client is slow to read."""
        self._paused_since = self._loop.time()
        self._update()
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Note that the client has read."""
        if self._paused_since is not None:
            self._answer_seconds -= self._loop.time() - self._paused_since
        self._paused_since = None
        self._update()
        self._inner.resume_writing()

    # ------------------------------------------------------------------ requests

    @property
    def is_body_unread(self) -> bool:
        """Whether the body of the request has not arrived as a whole."""
        return bool(self._inner.is_body_unread)

    def begin_request(self) -> None:
        """Note that a request is being answered."""
        if not self._n_requests:
            self._answer_seconds = self._connections.limits.answer_timeout
        self._n_requests += 1
        self._update()

    def end_request(self) -> None:
        """Note that a request is answered."""
        self._n_requests -= 1
        self._update()

    def drop(self) -> None:
        """Close the connection, whatever was not sent."""
        if not self._transport.is_closing():
            self._connections.on_drop()
        self._leave()
        self._transport.abort()

    # ------------------------------------------------------------------ helpers

    def _open(self, transport: Any) -> None:
        self._inner = self._make_protocol()
        self._inner.connection_made(transport)
        if self._early:
            early, self._early = self._early, b""
            self._inner.data_received(early)

    async def _start_tls(self, context: ssl.SSLContext) -> None:
        try:
            transport = await self._loop.start_tls(
                self._transport,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=self._connections.limits.header_timeout,
            )
        except (OSError, asyncio.TimeoutError):  # no TLS, or gone
            self.drop()
            return
        if self._is_in:  # it may have been lost meanwhile
            self._open(transport)

    def _update(self) -> None:
        """Set the time until which the client must have done its part."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._is_in:
            return
        seconds: float | None = None
        if self._paused_since is not None:
            seconds = max(0.0, self._answer_seconds)
        elif not self._n_requests:
            seconds = self._connections.limits.header_timeout
        self._connections.set_waiting(self, seconds is not None)
        if seconds is not None:
            self._timer = self._loop.call_later(seconds, self.drop)

    def _leave(self) -> None:
        if self._is_in:
            self._is_in = False
            self._update()
            self._connections.remove(self)


def door_of(scope: Any) -> Door | None:
    """Return the connection of a request, or None if another server has it."""
    door: Door | None = scope.get("state", {}).get(_NAME)
    return door


def watched(app: Any) -> Any:
    """Tell a connection when a request of it begins and ends.

    An answer that comes before the request's body tells the client that it ends the connection.

    Parameters
    ----------
    app : ASGI application

    Returns
    -------
    ASGI application
    """

    async def watching(scope: Any, receive: Any, send: Any) -> None:
        door = door_of(scope)
        if door is None:
            await app(scope, receive, send)
            return

        async def send_or_end(message: Any) -> None:
            if message["type"] == "http.response.start" and door.is_body_unread:
                headers = [*message.get("headers", []), (b"connection", b"close")]
                message = {**message, "headers": headers}
            await send(message)

        door.begin_request()
        try:
            await app(scope, receive, send_or_end)
        finally:
            door.end_request()

    return watching
