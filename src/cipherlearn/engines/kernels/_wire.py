"""Serialization of values and keys as Concrete does it: Cap'n Proto messages of its protocol.

Reading is safe for all bytes: only memory of theirs is read, and only MessageError is raised. The
encoding is at https://capnproto.org/encoding.html, and the protocol in Concrete's
concrete-protocol.capnp.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cipherlearn._exceptions import MessageError
from cipherlearn.engines.kernels._parameters import Gate

__all__ = ["Words", "read_keys", "read_value", "write_value"]

Words = NDArray[np.uint64]

# Largest numbers of keys, of parts of a key, and of segments of a message.
_MAX_LENGTH, _MAX_SEGMENTS = 64, 512
_STRUCT, _LIST, _FAR = 0, 1, 2
_BYTES, _UINT32S, _POINTERS, _STRUCTS = 2, 4, 6, 7


@dataclass(frozen=True)
class _Struct:
    """Position of the pointers of a struct."""

    segment: int
    pointers: int
    n_pointers: int


class _Reader:
    """Bounds-checked view of a message in segments of words."""

    def __init__(self, data: bytes) -> None:
        n_segments = 1 + _uint32s(data, 0, 1)[0]
        if n_segments > _MAX_SEGMENTS:
            raise _malformed(f"{n_segments} segments")
        sizes = _uint32s(data, 4, n_segments)
        start = 8 * (n_segments // 2 + 1)
        if len(data) != start + 8 * sum(sizes):
            raise _malformed(f"{len(data)} bytes instead of {start + 8 * sum(sizes)}")
        # Kernels read whole words.
        words = np.require(np.frombuffer(data, dtype="<u8"), requirements="A")
        edges = np.cumsum([start // 8, *sizes])
        self._segments = [words[a:b] for a, b in itertools.pairwise(edges)]

    def words(self, segment: int, start: int, n: int) -> Words:
        """Return words of a segment, or raise MessageError if it has fewer."""
        if not 0 <= segment < len(self._segments):
            raise _malformed(f"a pointer to segment {segment}")
        if not 0 <= start <= start + n <= len(self._segments[segment]):
            raise _malformed(f"a pointer to words {start} to {start + n} of a segment")
        return self._segments[segment][start : start + n]

    def root(self) -> _Struct:
        """Return the root struct of the message."""
        return self._struct(0, 0)

    def struct(self, parent: _Struct, index: int) -> _Struct:
        """Follow a pointer of a struct to a struct."""
        return self._struct(parent.segment, self._pointer(parent, index))

    def structs(self, parent: _Struct, index: int) -> list[_Struct]:
        """Follow a pointer of a struct to a list of structs."""
        at = self._list(parent.segment, self._pointer(parent, index), _STRUCTS)
        if at is None:
            return []
        segment, start, n_words = at
        tag = int(self.words(segment, start, 1)[0])
        n, n_data, n_pointers = (tag & 0xFFFFFFFF) >> 2, (tag >> 32) & 0xFFFF, tag >> 48
        size = n_data + n_pointers
        if n * size != n_words or n > _MAX_LENGTH:
            raise _malformed(f"a list of {n} structs in {n_words} words")
        self.words(segment, start + 1, n_words)
        return [_Struct(segment, start + 1 + i * size + n_data, n_pointers) for i in range(n)]

    def blobs(self, parent: _Struct, index: int) -> Words:
        """Follow a pointer of a struct to a list of byte strings, and join them to words."""
        at = self._list(parent.segment, self._pointer(parent, index), _POINTERS)
        if at is None:
            return np.empty(0, dtype=np.uint64)
        segment, start, n = at
        if n > _MAX_LENGTH:
            raise _malformed(f"a list of {n} byte strings")
        parts = [self._blob(segment, start + i) for i in range(n)]
        if sum(map(len, parts)) > sum(map(len, self._segments)):
            raise _malformed("byte strings that overlap")
        return parts[0] if n == 1 else np.concatenate(parts or [np.empty(0, np.uint64)])

    def _blob(self, segment: int, position: int) -> Words:
        at = self._list(segment, position, _BYTES)
        if at is None:
            return np.empty(0, dtype=np.uint64)
        segment, start, n_bytes = at
        if n_bytes % 8:
            raise _malformed(f"{n_bytes} bytes, which are no whole words")
        return self.words(segment, start, n_bytes // 8)

    def _pointer(self, parent: _Struct, index: int) -> int:
        if index >= parent.n_pointers:
            raise _malformed(f"a struct of {parent.n_pointers} pointers")
        return parent.pointers + index

    def _struct(self, segment: int, position: int) -> _Struct:
        segment, start, word = self._follow(segment, position)
        if word == 0 or word & 3 != _STRUCT:
            raise _malformed("no struct where one must be")
        n_data, n_pointers = (word >> 32) & 0xFFFF, word >> 48
        self.words(segment, start, n_data + n_pointers)
        return _Struct(segment, start + n_data, n_pointers)

    def _list(self, segment: int, position: int, kind: int) -> tuple[int, int, int] | None:
        """Return segment, start and length of a list, or ``None`` for a null pointer."""
        segment, start, word = self._follow(segment, position)
        if word == 0:
            return None
        if word & 3 != _LIST or (word >> 32) & 7 != kind:
            raise _malformed("no list where one must be")
        return segment, start, word >> 35

    def _follow(self, segment: int, position: int) -> tuple[int, int, int]:
        """Return segment and start of a pointer's target, and the pointer that describes it."""
        word = int(self.words(segment, position, 1)[0])
        if word & 3 != _FAR:
            return segment, position + 1 + _offset(word), word
        double, landing, segment = word & 4, (word & 0xFFFFFFFF) >> 3, word >> 32
        if not double:
            word = int(self.words(segment, landing, 1)[0])
            if word & 3 == _FAR:
                raise _malformed("a far pointer to a far pointer")
            return segment, landing + 1 + _offset(word), word
        far, word = (int(w) for w in self.words(segment, landing, 2))
        if far & 7 != _FAR:
            raise _malformed("no far pointer where one must be")
        return far >> 32, (far & 0xFFFFFFFF) >> 3, word


def read_keys(data: bytes) -> tuple[list[Words], list[Words]]:
    """Read the words of bootstrap keys and of keyswitch keys, as they were sent."""
    reader = _Reader(data)
    root = reader.root()
    bootstrap, keyswitch = (
        [reader.blobs(reader.struct(key, 1), 0) for key in reader.structs(root, field)]
        for field in (0, 1)
    )
    return bootstrap, keyswitch


def read_value(data: bytes) -> Words:
    """Read the words of serialized ciphertexts."""
    reader = _Reader(data)
    return reader.blobs(reader.struct(reader.root(), 0), 0)


def write_value(words: Words, gate: Gate) -> bytes:
    """Serialize ciphertexts of shape (n_rows, n_values, n_words) as a value of a gate's type."""
    shape, integer = _shape(words.shape), struct.pack("<I?x", gate.width, gate.is_signed)
    native = _node(b"")
    encryption = _node(
        struct.pack("<IId", gate.key, gate.dimension, gate.variance), _node(bytes(8), native)
    )
    compression = 1 if gate.seeded else 0
    ciphertext = _node(
        struct.pack("<IHH", 64, compression, 0),
        _shape(words.shape[:-1]),
        shape,
        encryption,
        _node(integer, native),
    )
    blob = _Node(_LIST, _BYTES, np.ascontiguousarray(words, dtype="<u8").tobytes(), 8 * words.size)
    payload = _node(b"", _Node(_LIST, _POINTERS, b"", 1, (blob,)))
    raw = _node(struct.pack("<I", 64), shape)
    buffer = bytearray(8)
    _place(buffer, 0, _node(b"", payload, raw, _node(bytes(8), ciphertext)))
    return struct.pack("<II", 0, len(buffer) // 8) + bytes(buffer)


@dataclass(frozen=True)
class _Node:
    """A struct or a list, before it is placed in a message."""

    kind: int
    element: int
    data: bytes
    length: int
    pointers: tuple[_Node, ...] = ()


def _node(data: bytes, *pointers: _Node) -> _Node:
    """Make a struct."""
    data += bytes(-len(data) % 8)
    return _Node(_STRUCT, 0, data, len(data) // 8, pointers)


def _shape(dimensions: Sequence[int]) -> _Node:
    data = struct.pack(f"<{len(dimensions)}I", *dimensions)
    return _node(b"", _Node(_LIST, _UINT32S, data, len(dimensions)))


def _place(buffer: bytearray, position: int, node: _Node) -> None:
    """Append a node to a buffer, and write the pointer to it at a position."""
    start = len(buffer)
    buffer += node.data + bytes(-len(node.data) % 8) + bytes(8 * len(node.pointers))
    # An empty struct points at itself, since a word of 0 is a null pointer.
    offset = (start - position) // 8 - 1 if len(buffer) > start else -1
    if node.kind == _STRUCT:
        upper = node.length | len(node.pointers) << 16
    else:
        upper = node.element | node.length << 3
    struct.pack_into("<iI", buffer, position, offset * 4 + node.kind, upper)
    first = len(buffer) - 8 * len(node.pointers)
    for i, child in enumerate(node.pointers):
        _place(buffer, first + 8 * i, child)


def _uint32s(data: bytes, start: int, n: int) -> list[int]:
    if len(data) < start + 4 * n:
        raise _malformed(f"{len(data)} bytes")
    return list(struct.unpack_from(f"<{n}I", data, start))


def _offset(pointer: int) -> int:
    """Return the signed offset of a pointer, in words."""
    offset = (pointer & 0xFFFFFFFF) >> 2
    return offset - 2**30 if offset >= 2**29 else offset


def _malformed(got: str) -> MessageError:
    return MessageError(
        f"Values and evaluation keys must be as Concrete serializes them. Got {got}. Make them "
        "with the client of this model."
    )
