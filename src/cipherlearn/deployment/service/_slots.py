"""Limits on the number of requests in progress."""

from __future__ import annotations

from collections import Counter
from typing import Any

from cipherlearn.deployment.service._connections import peer_of
from cipherlearn.deployment.service._refusals import refusal

__all__ = ["SlotLimit", "Slots"]


class Slots:
    """Counter of requests in progress, with a limit, of which a peer gets at most half."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._peers: Counter[str] = Counter()

    @property
    def n_running(self) -> int:
        """Requests in progress."""
        return self._peers.total()

    def take(self, peer: str) -> bool:
        """Take a slot, or return False if there is none for a peer."""
        share = max(1, self.limit // 2)
        if self.n_running >= self.limit or self._peers[peer] >= share:
            return False
        self._peers[peer] += 1
        return True

    def give_back(self, peer: str) -> None:
        """Give a slot back."""
        self._peers -= Counter({peer: 1})


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
        peer = peer_of(scope["client"][0]) if scope.get("client") else ""
        if not slots.take(peer):
            detail = (
                f"This service takes {slots.limit} such requests at a time, at most half of them "
                "from one address. Come back."
            )
            await refusal(503, detail, {"Retry-After": "1"})(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            slots.give_back(peer)

    def _find(self, scope: Any) -> Slots | None:
        for (method, start), slots in self._slots.items():
            if scope["method"] == method and scope["path"].startswith(start):
                return slots
        return None
