"""HTTP by uvicorn and h11, a bounded part of what arrived at a time.

They parse all that arrived in one go, also a body that nobody reads any more. Thousands of chunks
of one byte would stop the event loop meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["PacedProtocol"]

# Bytes and events (a head, a chunk, an end) that are parsed before others have their turn.
_PART_BYTES = 16384
_PART_EVENTS = 64


class _PacedParser(h11.Connection):
    """A parser that needs more data, as it says, once it has given its share of events."""

    n_left = 1

    def next_event(self) -> Any:
        if not self.n_left:
            return h11.NEED_DATA
        self.n_left -= 1
        return super().next_event()


class _Line:
    """A transport whose reading and end a protocol decides on."""

    def __init__(self, transport: Any, protocol: PacedProtocol) -> None:
        self._transport = transport
        self.pause_reading = protocol.pause_reading
        self.resume_reading = protocol.resume_reading
        self.close = protocol.close
        self.is_closing = protocol.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class PacedProtocol(H11Protocol):
    """HTTP that is parsed a part at a time, and no further where a body was refused.

    A request that is answered before its body arrived ends its connection: what still arrives is
    dropped unread, until the client has closed its side or its time is over.

    Parameters
    ----------
    *arguments, **named : object
        Those of uvicorn's protocol.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.conn: _PacedParser = _PacedParser(h11.SERVER)
        self._unparsed = bytearray()
        self._is_paused = False  # by uvicorn, which has enough
        self._is_refused = False
        self._next_part: asyncio.Handle | None = None

    # ------------------------------------------------------------------ asyncio's protocol

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self._socket = transport
        line: Any = _Line(transport, self)
        super().connection_made(line)

    def data_received(self, data: bytes) -> None:
        """Parse a part of what was received, and the others later."""
        if self.is_closing():
            return
        self._unset_keepalive_if_required()
        self._unparsed += data
        if self._next_part is None and not self._is_paused:
            self._parse()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what was not parsed."""
        self._stop_parsing()
        super().connection_lost(exc)

    # ------------------------------------------------------------------ uvicorn's protocol

    @property
    def is_body_unread(self) -> bool:
        """Whether a request's body has not arrived as a whole."""
        return self.conn.their_state is h11.SEND_BODY

    def handle_events(self) -> None:
        """Handle a share of the events."""
        self.conn.n_left = _PART_EVENTS
        super().handle_events()

    def pause_reading(self) -> None:
        """Neither read nor parse."""
        self._is_paused = True
        self._socket.pause_reading()

    def resume_reading(self) -> None:
        """Parse what was received, and read on."""
        self._is_paused = False
        self._go_on()

    def is_closing(self) -> bool:
        """Return whether nothing is parsed any more."""
        return self._is_refused or self._socket.is_closing()

    def close(self) -> None:
        """Close the connection or, if the client still sends a body, drop that first.

        Otherwise its system would drop the answer.
        """
        self._stop_parsing()
        if self._is_refused or not self.is_body_unread:
            self._socket.close()
            return
        self._is_refused = True
        self._socket.resume_reading()
        if self._socket.can_write_eof():
            self._socket.write_eof()

    # ------------------------------------------------------------------ helpers

    def _parse(self) -> None:
        self._next_part = None
        if self._is_paused or self.is_closing():
            return
        if self._unparsed and self.conn.n_left:  # it has given all events of the last part
            part = bytes(self._unparsed[:_PART_BYTES])
            del self._unparsed[:_PART_BYTES]
            self.conn.receive_data(part)
        self.handle_events()
        self._go_on()

    def _go_on(self) -> None:
        if self._is_paused or self._next_part is not None or self.is_closing():
            return
        if self._unparsed or not self.conn.n_left:
            self._socket.pause_reading()
            self._next_part = self.loop.call_soon(self._parse)
        else:
            self._socket.resume_reading()

    def _stop_parsing(self) -> None:
        self._unparsed.clear()
        if self._next_part is not None:
            self._next_part.cancel()
            self._next_part = None
