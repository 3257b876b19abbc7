"""Limits on the number of requests in progress."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

__all__ = ["SlotLimit", "Slots"]


class Slots:
    """Counter of requests in progress, with a limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.n_running = 0


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
        if slots.n_running >= slots.limit:
            detail = f"This service takes {slots.limit} such requests at a time. Come back."
            refusal = JSONResponse({"detail": detail}, 503, {"Retry-After": "1"})
            await refusal(scope, receive, send)
            return
        slots.n_running += 1
        try:
            await self._app(scope, receive, send)
        finally:
            slots.n_running -= 1

    def _find(self, scope: Any) -> Slots | None:
        for (method, start), slots in self._slots.items():
            if scope["method"] == method and scope["path"].startswith(start):
                return slots
        return None
