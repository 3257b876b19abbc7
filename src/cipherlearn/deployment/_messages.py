"""Messages between client and server: a header, and a payload of a known structure.

What the engine serializes is structure around numbers, and malformed structure can crash it. The
structure depends on the circuit alone, so it is recorded once, as a :class:`Frame`. Only the
numbers travel, and whoever receives them puts them back into the structure it knows.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from cipherlearn._exceptions import ArtefactError, MessageError

__all__ = ["HEADER_BYTES", "Frame", "Kind", "Message"]

_MAGIC = b"CLRN"
_VERSION = 1

# Magic, version, kind, three 32-byte fields, payload's length, payload's SHA-256.
_HEADER = struct.Struct("<4sHH32s32s32sQ32s")
HEADER_BYTES = _HEADER.size

_WORD = np.dtype("<u8")
_NOTHING = bytes(32)


class Kind(IntEnum):
    """Kind of a message."""

    EVALUATION_KEYS = 1
    CIPHERTEXT = 2
    RESULT = 3
    ERROR = 4


@dataclass(frozen=True)
class Message:
    """Payload with the ids of its model and keys.

    Parameters
    ----------
    kind : Kind
    scope : bytes of length 32
        Id of the keyset for evaluation keys, else of the model.
    key : bytes of length 32
        Id of the keys that made it. In evaluation keys, random bytes that make the id unique.
    payload : bytes
    answers : bytes of length 32
        In a result, the SHA-256 of the ciphertext's payload.
    """

    kind: Kind
    scope: bytes
    key: bytes
    payload: bytes
    answers: bytes = _NOTHING

    @property
    def digest(self) -> bytes:
        """SHA-256 of the payload."""
        return hashlib.sha256(self.payload).digest()

    def to_bytes(self) -> bytes:
        """Serialize."""
        header = _HEADER.pack(
            _MAGIC,
            _VERSION,
            self.kind,
            self.scope,
            self.key,
            self.answers,
            len(self.payload),
            self.digest,
        )
        return header + self.payload

    @staticmethod
    def length(header: bytes) -> int:
        """Length of the whole message that starts with these ``HEADER_BYTES``."""
        n_payload: int
        magic, version, *_, n_payload, _ = _HEADER.unpack(header)
        _check_start(magic, version, "in a stream")
        return HEADER_BYTES + n_payload

    @staticmethod
    def kind_of(header: bytes) -> int:
        """Kind of the message that starts with these ``HEADER_BYTES``."""
        kind: int = _HEADER.unpack(header)[2]
        return kind

    @staticmethod
    def key_of(header: bytes) -> bytes:
        """Id of the keys of the message that starts with these ``HEADER_BYTES``."""
        key: bytes = _HEADER.unpack(header)[4]
        return key

    @classmethod
    def from_bytes(cls, data: bytes, kind: Kind) -> Message:
        """Parse a message of this kind, or raise MessageError."""
        scope, key, answers = _checked_header(data, kind)
        return cls(kind, scope, key, bytes(data[HEADER_BYTES:]), answers)

    @staticmethod
    def check(data: bytes, kind: Kind) -> bytes:
        """Return the scope of a message of this kind, or raise MessageError. Copies no payload."""
        return _checked_header(data, kind)[0]


def _checked_header(data: bytes, kind: Kind) -> tuple[bytes, bytes, bytes]:
    """Return scope, key and answers of a whole message of this kind, or raise MessageError."""
    name = kind.name.lower().replace("_", " ")
    if not isinstance(data, bytes | bytearray | memoryview):
        raise MessageError(f"A message ({name}) must be bytes. Got {data!r:.100}.")
    if len(data) < HEADER_BYTES:
        raise MessageError(
            f"A message ({name}) has at least {HEADER_BYTES} bytes. Got {len(data)}."
        )
    magic, version, found, scope, key, answers, length, digest = _HEADER.unpack_from(data)
    _check_start(magic, version, name)
    if found != kind:
        raise MessageError(f"Expected a message of kind {kind} ({name}). Got kind {found}.")
    if length != len(data) - HEADER_BYTES:
        raise MessageError(
            f"The payload of this message ({name}) must have the {length} bytes that its "
            f"header names. Got {len(data) - HEADER_BYTES}: it was cut or joined on its way."
        )
    if hashlib.sha256(memoryview(data)[HEADER_BYTES:]).digest() != digest:
        raise MessageError(
            f"The payload of this message ({name}) does not match its checksum: it was damaged "
            "on its way. Send it again."
        )
    return scope, key, answers


def _check_start(magic: bytes, version: int, name: str) -> None:
    if magic != _MAGIC or version != _VERSION:
        raise MessageError(
            f"A message ({name}) starts with {_MAGIC!r} and version {_VERSION}. Got {magic!r} "
            f"and version {version}. Make it with the cipherlearn that the server runs."
        )


@dataclass(frozen=True)
class Frame:
    """The structure that serialized values of one type have in common.

    Parameters
    ----------
    sizes : tuple of int
        Length of each serialized value: the keys, or a ciphertext for each input or output.
    fixed : tuple of (int, bytes)
        Position, in all values one after the other, and content of what never changes, in
        ascending order. The rest is payload.

    Examples
    --------
    >>> from cipherlearn.deployment._messages import Frame
    >>> frame = Frame.between([b"struct  12345678end....."], [b"struct  abcdefghend....."])
    >>> frame.strip([b"struct  87654321end....."])
    b'87654321'
    >>> frame.fill(b"somebody")
    [b'struct  somebodyend.....']
    """

    sizes: tuple[int, ...]
    fixed: tuple[tuple[int, bytes], ...]

    @classmethod
    def between(cls, first: Sequence[bytes], second: Sequence[bytes]) -> Frame:
        """Find the common structure of values that were encrypted apart.

        Payload is random, so that a word of 8 bytes that both share is structure, up to a chance
        of 2**-64.
        """
        sizes = tuple(map(len, first))
        if sizes != tuple(map(len, second)) or any(size % _WORD.itemsize for size in sizes):
            raise ArtefactError(
                "Values of one type must have one length, in words of 8 bytes. "
                f"Got {sizes} and {tuple(map(len, second))} bytes."
            )
        joined = b"".join(first)
        same = np.frombuffer(joined, _WORD) == np.frombuffer(b"".join(second), _WORD)
        edges = np.flatnonzero(np.diff(same, prepend=False, append=False)) * _WORD.itemsize
        starts, ends = edges[::2].tolist(), edges[1::2].tolist()
        runs = zip(starts, ends, strict=True)
        return cls(sizes, tuple((start, joined[start:end]) for start, end in runs))

    @property
    def n_payload(self) -> int:
        """Length of the payload, in bytes."""
        return sum(self.sizes) - sum(len(content) for _, content in self.fixed)

    def strip(self, values: Sequence[bytes]) -> bytes:
        """Take the payload out of values."""
        joined = b"".join(values)
        if tuple(map(len, values)) != self.sizes or any(
            joined[start : start + len(content)] != content for start, content in self.fixed
        ):
            raise MessageError(
                "The engine gave a value of another structure than when the model was exported. "
                "Export the model again with the installed versions."
            )
        return b"".join(joined[start:end] for start, end in self._payload_runs())

    def fill(self, payload: bytes) -> list[bytes]:
        """Put a payload back into the structure of the values."""
        self.check_length(len(payload))
        joined = bytearray(sum(self.sizes))
        for start, content in self.fixed:
            joined[start : start + len(content)] = content
        position = 0
        for start, end in self._payload_runs():
            joined[start:end] = payload[position : position + end - start]
            position += end - start
        ends = list(itertools.accumulate(self.sizes))
        return [bytes(joined[end - size : end]) for end, size in zip(ends, self.sizes, strict=True)]

    def check_length(self, n_bytes: int) -> None:
        """Raise MessageError unless a payload has so many bytes."""
        if n_bytes != self.n_payload:
            raise MessageError(
                f"A payload of this model must have {self.n_payload} bytes. Got {n_bytes}. "
                "It was made for another model, or cut on its way."
            )

    def _payload_runs(self) -> list[tuple[int, int]]:
        starts = [0, *(start + len(content) for start, content in self.fixed)]
        ends = [*(start for start, _ in self.fixed), sum(self.sizes)]
        return [(start, end) for start, end in zip(starts, ends, strict=True) if start < end]

    def to_json(self) -> dict[str, Any]:
        """Describe the frame for an artefact."""
        fixed = [[start, content.hex()] for start, content in self.fixed]
        return {"sizes": list(self.sizes), "fixed": fixed}

    @classmethod
    def from_json(cls, value: Any) -> Frame:
        """Read what :meth:`to_json` wrote, or raise ArtefactError."""
        try:
            fixed = tuple((start, bytes.fromhex(content)) for start, content in value["fixed"])
            frame = cls(tuple(value["sizes"]), fixed)
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"A frame needs sizes and fixed. {error}.") from error
        if any(type(n) is not int for n in (*frame.sizes, *(start for start, _ in fixed))):
            raise ArtefactError("Positions and sizes of a frame must be integers.")
        edges = [0]
        for start, content in fixed:
            edges += [start, start + len(content)]
        edges.append(sum(frame.sizes))
        if edges != sorted(edges) or min(frame.sizes, default=0) < 1:
            raise ArtefactError("The fixed parts of a frame must ascend, within its lengths.")
        return frame
