"""Cap'n Proto messages, to words and back.

Whatever bytes are read, nothing outside of them is, and only MessageError is raised. The encoding
is at https://capnproto.org/encoding.html.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cipherlearn._exceptions import MessageError

__all__ = [
    "Node",
    "Reader",
    "Struct",
    "Words",
    "blobs_node",
    "integers_node",
    "struct_node",
    "structs_node",
    "write_message",
]

Words = NDArray[np.uint64]

# Largest numbers of keys, of parts of a key, and of segments of a message.
_MAX_LENGTH, _MAX_SEGMENTS = 64, 512
# A byte string has less than 2**29 bytes.
_BLOB_WORDS = 1 << 25
_STRUCT, _LIST, _FAR = 0, 1, 2
_BYTES, _UINT32S, _POINTERS, _STRUCTS = 2, 4, 6, 7


@dataclass(frozen=True)
class Struct:
    """Position of the pointers of a struct."""

    segment: int
    pointers: int
    n_pointers: int


class Reader:
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
        # Words that byte strings may still have.
        self._n_left = len(words)

    def words(self, segment: int, start: int, n: int) -> Words:
        """Return words of a segment, or raise MessageError if it has fewer."""
        if not 0 <= segment < len(self._segments):
            raise _malformed(f"a pointer to segment {segment}")
        if not 0 <= start <= start + n <= len(self._segments[segment]):
            raise _malformed(f"a pointer to words {start} to {start + n} of a segment")
        return self._segments[segment][start : start + n]

    def root(self) -> Struct:
        """Return the root struct of the message."""
        return self._struct(0, 0)

    def struct(self, parent: Struct, index: int) -> Struct:
        """Follow a pointer of a struct to a struct."""
        return self._struct(parent.segment, self._pointer(parent, index))

    def structs(self, parent: Struct, index: int) -> list[Struct]:
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
        return [Struct(segment, start + 1 + i * size + n_data, n_pointers) for i in range(n)]

    def blobs(self, parent: Struct, index: int) -> Words:
        """Follow a pointer of a struct to a list of byte strings, and join them to words."""
        at = self._list(parent.segment, self._pointer(parent, index), _POINTERS)
        if at is None:
            return np.empty(0, dtype=np.uint64)
        segment, start, n = at
        if n > _MAX_LENGTH:
            raise _malformed(f"a list of {n} byte strings")
        parts = [self._blob(segment, start + i) for i in range(n)]
        self._n_left -= sum(map(len, parts))
        if self._n_left < 0:
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

    def _pointer(self, parent: Struct, index: int) -> int:
        if index >= parent.n_pointers:
            raise _malformed(f"a struct of {parent.n_pointers} pointers")
        return parent.pointers + index

    def _struct(self, segment: int, position: int) -> Struct:
        segment, start, word = self._follow(segment, position)
        if word == 0 or word & 3 != _STRUCT:
            raise _malformed("no struct where one must be")
        n_data, n_pointers = (word >> 32) & 0xFFFF, word >> 48
        self.words(segment, start, n_data + n_pointers)
        return Struct(segment, start + n_data, n_pointers)

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


@dataclass(frozen=True)
class Node:
    """A struct or a list that is not written yet. The functions below make one.

    Parameters
    ----------
    kind, element : int
        Kind of a pointer to it, and size code of a list's elements.
    data : bytes
        Content, a whole number of words.
    length : int
        Words of a struct's data, elements of a list, or words of a list of structs.
    pointers : tuple of Node or None
        Structs and lists that it points at. None is a null pointer, which empty lists may be.
    items : tuple of Node
        Structs of a list, which follow its data.
    """

    kind: int
    element: int
    data: bytes
    length: int
    pointers: tuple[Node | None, ...] = ()
    items: tuple[Node, ...] = ()


def struct_node(data: bytes, *pointers: Node | None) -> Node:
    """Make a struct."""
    data += bytes(-len(data) % 8)
    return Node(_STRUCT, 0, data, len(data) // 8, pointers)


def structs_node(items: Sequence[Node]) -> Node | None:
    """Make a list of structs of one type."""
    if not items:
        return None
    n_data, n_pointers = items[0].length, len(items[0].pointers)
    tag = struct.pack("<IHH", len(items) << 2, n_data, n_pointers)
    n_words = len(items) * (n_data + n_pointers)
    return Node(_LIST, _STRUCTS, tag, n_words, items=tuple(items))


def integers_node(integers: Sequence[int]) -> Node:
    """Make a list of integers of 32 bits."""
    data = struct.pack(f"<{len(integers)}I", *integers)
    return Node(_LIST, _UINT32S, data + bytes(-len(data) % 8), len(integers))


def blobs_node(words: Words) -> Node:
    """Make a list of byte strings of words, which together are these."""
    words = np.ascontiguousarray(words, dtype="<u8").ravel()
    parts = [words[i : i + _BLOB_WORDS] for i in range(0, len(words), _BLOB_WORDS)]
    blobs = tuple(Node(_LIST, _BYTES, part.tobytes(), 8 * len(part)) for part in parts)
    return Node(_LIST, _POINTERS, b"", len(blobs), blobs)


def write_message(root: Node) -> bytes:
    """Write a struct as a message of one segment."""
    buffer = bytearray(8)
    _place(buffer, 0, root)
    return struct.pack("<II", 0, len(buffer) // 8) + buffer


def _place(buffer: bytearray, position: int, node: Node) -> None:
    """Append a node, and let the word at a position point at it."""
    start = len(buffer)
    waiting: list[tuple[int, Node]] = []
    for part in (node, *node.items):
        buffer += part.data
        for child in part.pointers:
            if child is not None:
                waiting.append((len(buffer), child))
            buffer += bytes(8)
    # A struct of no size points at itself: a word of 0 would stand for none.
    offset = (start - position) // 8 - 1 if len(buffer) > start else -1
    if node.kind == _STRUCT:
        upper = node.length | len(node.pointers) << 16
    else:
        upper = node.element | node.length << 3
    struct.pack_into("<iI", buffer, position, offset * 4 + node.kind, upper)
    for place, child in waiting:
        _place(buffer, place, child)


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
