"""Turns of peers at the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

__all__ = ["Turns"]

# Of a few tenths of a millisecond each, with the requests that they begin.
_PARTS_A_TURN = 8


class Turns:
    """Parts of work of all connections, of which the event loop does a few at a time.

    Peers have their turns one after the other, however many connections each has.
    """

    def __init__(self) -> None:
        self._parts: dict[str, deque[Callable[[], object]]] = {}
        self._is_running = False

    def add(self, peer: str, part: Callable[[], object]) -> None:
        """Have a part done when its peer has its turn."""
        self._parts.setdefault(peer, deque()).append(part)
        if not self._is_running:
            self._is_running = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(_PARTS_A_TURN):
            if not self._parts:
                self._is_running = False
                return
            peer = next(iter(self._parts))
            parts = self._parts.pop(peer)
            # Called by the loop, which logs what goes wrong, and goes on.
            loop.call_soon(parts.popleft())
            if parts:
                self._parts[peer] = parts  # behind all others
        loop.call_soon(self._run)
