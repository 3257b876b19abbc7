"""Limits on the number of requests in progress."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from cipherlearn.deployment.service._connections import door_of, peer_of
from cipherlearn.deployment.service._refusals import refusal

__all__ = ["Slot", "SlotLimit", "Slots"]

# Bytes a second that a client must send of its body, or read of its answer, lest it give way to
# others, and seconds for which it may send or read none.
_FAIR_RATE = 32768
_PATIENCE = 5.0


class Slot:
    """The place of a request in progress, and how late its client is.

    Parameters
    ----------
    peer : str
    drop : callable or None, default=None
        Ends the request for another. None if that cannot be done.
    clock : callable, default=time.monotonic
    """

    def __init__(
        self,
        peer: str,
        drop: Callable[[], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.peer = peer
        self.drop = drop
        self._clock = clock
        self._late = -_PATIENCE
        self._waits_since: float | None = None

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time that the context takes as the client's."""
        self._waits_since = start = self._clock()
        try:
            yield
        finally:
            self._late += self._clock() - start
            self._waits_since = None

    def pass_on(self, n_bytes: int) -> None:
        """Note that the client has sent or read bytes."""
        self._late = max(-_PATIENCE, self._late - n_bytes / _FAIR_RATE)

    @property
    def seconds_late(self) -> float:
        """Seconds for which the client has been too slow. Negative if it may still take some."""
        if self._waits_since is None or self.drop is None:
            return -_PATIENCE
        return self._late + self._clock() - self._waits_since


class Slots:
    """Requests in progress, with a limit, of which a peer gets at most half.

    When there is none for a peer, the client that is latest with its part gives way.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._slots: set[Slot] = set()

    @property
    def n_running(self) -> int:
        """Requests in progress."""
        return len(self._slots)

    def take(self, slot: Slot) -> bool:
        """Take a slot, or return False if there is none for its peer."""
        own = [each for each in self._slots if each.peer == slot.peer]
        has_its_share = len(own) >= max(1, self.limit // 2)
        if has_its_share or len(self._slots) >= self.limit:
            # Who has its share takes from nobody else.
            candidates = own if has_its_share else self._slots
            latest = max(candidates, key=lambda each: each.seconds_late)
            if latest.drop is None or latest.seconds_late <= 0:
                return False
            self.give_back(latest)
            latest.drop()
        self._slots.add(slot)
        return True

    def give_back(self, slot: Slot) -> None:
        """Give a slot back, unless another has it already."""
        self._slots.discard(slot)


class SlotLimit:
    """ASGI middleware that answers 503 to requests without a free slot.

    A request has its slot from its first byte to its last, so that slots bound the memory and the
    files that all requests take together.

    Parameters
    ----------
    app : ASGI application
    slots : dict of (str, str) to Slots
        By method and start of the path.
    """

    def __init__(self, app: Any, slots: dict[tuple[str, str], Slots]) -> None:
        self._app = app
        self._slots = slots

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle a connection."""
        slots = self._find(scope) if scope["type"] == "http" else None
        if slots is None:
            await self._app(scope, receive, send)
            return
        door = door_of(scope)
        peer = peer_of(scope["client"][0]) if scope.get("client") else ""
        slot = Slot(peer, None if door is None else door.drop)
        if not slots.take(slot):
            detail = (
                f"This service takes {slots.limit} such requests at a time, at most half of them "
                "from one address. Come back."
            )
            await refusal(503, detail, {"Retry-After": "1"})(scope, receive, send)
            return
        try:
            await self._app(scope, *_timed(slot, receive, send))
        finally:
            slots.give_back(slot)

    def _find(self, scope: Any) -> Slots | None:
        for (method, start), slots in self._slots.items():
            if scope["method"] == method and scope["path"].startswith(start):
                return slots
        return None


def _timed(slot: Slot, receive: Any, send: Any) -> tuple[Any, Any]:
    """Have a slot know when its request waits for its client."""
    is_body_whole = False

    async def timed_receive() -> Any:
        nonlocal is_body_whole
        if is_body_whole:  # it only waits for the end of the connection
            return await receive()
        with slot.waiting():
            message = await receive()
        is_body_whole = not message.get("more_body", False)
        slot.pass_on(len(message.get("body", b"")))
        return message

    async def timed_send(message: Any) -> None:
        with slot.waiting():
            await send(message)
        slot.pass_on(len(message.get("body", b"")))

    return timed_receive, timed_send
