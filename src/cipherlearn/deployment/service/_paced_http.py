"""HTTP by uvicorn and h11, a bounded part of what arrived at a time.

They parse all that arrived in one go, also a body that nobody reads any more. Thousands of chunks
of one byte would stop the event loop meanwhile.
"""

from __future__ import annotations

from typing import Any

import h11
from h11._receivebuffer import ReceiveBuffer
from uvicorn.protocols.http.h11_impl import H11Protocol

from cipherlearn.deployment.service._connections import peer_of
from cipherlearn.deployment.service._turns import Turns

__all__ = ["PacedProtocol"]

# Bytes and events (a head, a chunk, an end) that are parsed before others have their turn.
_PART_BYTES = 16384
_PART_EVENTS = 64

# Lines of a head, and of what follows the last chunk. h11 takes 8 ms for 4000 empty fields.
_MAX_LINES = 100

# Fields that a request must not have both. A proxy may have read the other.
_LENGTHS = {b"content-length", b"transfer-encoding"}


class _FewLines(ReceiveBuffer):
    """What was received, in which more lines than a head may have are an error."""

    def maybe_extract_lines(self) -> list[bytearray] | None:
        lines = self._data.split(b"\n", _MAX_LINES)
        if len(lines) > _MAX_LINES and not any(bytes(line) in (b"", b"\r") for line in lines[:-1]):
            raise h11.RemoteProtocolError(f"more than {_MAX_LINES} lines", 431)
        return super().maybe_extract_lines()


class _PacedParser(h11.Connection):
    """A parser that needs more data, as it says, once it has given its share of events."""

    n_left = 1

    def __init__(self) -> None:
        super().__init__(h11.SERVER)
        self._receive_buffer = _FewLines()

    def next_event(self) -> Any:
        if not self.n_left:
            return h11.NEED_DATA
        self.n_left -= 1
        event = super().next_event()
        if isinstance(event, h11.Request) and {name for name, _ in event.headers} >= _LENGTHS:
            raise h11.RemoteProtocolError("a body has one length")
        return event


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
    turns : Turns
        Of all connections, which parse one after the other.
    *arguments, **named : object
        Those of uvicorn's protocol.
    """

    def __init__(self, turns: Turns, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._turns = turns
        self.conn: _PacedParser = _PacedParser()
        self._unparsed = bytearray()
        self._is_paused = False  # by uvicorn, which has enough
        self._is_refused = False
        self._is_queued = False  # to parse
        self._is_pipelined = False  # a further request arrived with one that is answered now

    # ------------------------------------------------------------------ asyncio's protocol

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self._socket = transport
        line: Any = _Line(transport, self)
        super().connection_made(line)
        self._peer = peer_of(self.client[0]) if self.client else ""

    def data_received(self, data: bytes) -> None:
        """Have what was received parsed, a part at each turn."""
        if self.is_closing():
            return
        self._unset_keepalive_if_required()
        self._unparsed += data
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what was not parsed."""
        self._unparsed.clear()
        super().connection_lost(exc)

    # ------------------------------------------------------------------ uvicorn's protocol

    @property
    def is_body_unread(self) -> bool:
        """Whether a request's body has not arrived as a whole."""
        return self.conn.their_state is h11.SEND_BODY

    def handle_events(self) -> None:
        """Go on after an answer, at the next turn."""
        self._is_pipelined = bool(self.conn.trailing_data[0])
        self._go_on()

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
        self._unparsed.clear()
        if self._is_refused or not self.is_body_unread:
            self._socket.close()
            return
        self._is_refused = True
        self._socket.resume_reading()
        if self._socket.can_write_eof():
            self._socket.write_eof()

    # ------------------------------------------------------------------ helpers

    def _parse(self) -> None:
        self._is_queued = False
        if self._is_paused or self.is_closing():
            return
        # Once it has given all events of the last part.
        if self._unparsed and self.conn.n_left and not self._is_pipelined:
            part = bytes(self._unparsed[:_PART_BYTES])
            del self._unparsed[:_PART_BYTES]
            self.conn.receive_data(part)
        self._is_pipelined = False
        self.conn.n_left = _PART_EVENTS
        super().handle_events()
        self._go_on()

    def _go_on(self) -> None:
        if self._is_paused or self._is_queued or self.is_closing():
            return
        if self._unparsed or self._is_pipelined or not self.conn.n_left:
            self._socket.pause_reading()
            self._is_queued = True
            self._turns.add(self._peer, self._parse)
        else:
            self._socket.resume_reading()
