"""What Concrete serializes, to words and back: messages of its protocol.

Whatever bytes are read, nothing outside of them is, and only MessageError is raised. The protocol
is in concrete-protocol.capnp of Concrete.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from cipherlearn.engines.kernels._capnp import (
    Node,
    Reader,
    Struct,
    Words,
    blobs_node,
    integers_node,
    struct_node,
    structs_node,
    write_message,
)
from cipherlearn.engines.kernels._parameters import Gate

__all__ = [
    "Words",
    "key_node",
    "keys_node",
    "read_key_lists",
    "read_keys",
    "read_value",
    "write_keys",
    "write_value",
]

_COMPRESSIONS = {"none": 0, "seed": 1}


def read_keys(data: bytes) -> tuple[list[Words], list[Words]]:
    """Read the words of bootstrap keys and of keyswitch keys, as they were sent."""
    reader = Reader(data)
    return read_key_lists(reader, reader.root())


def read_key_lists(reader: Reader, keys: Struct) -> tuple[list[Words], list[Words]]:
    """Read the words of bootstrap keys and of keyswitch keys in a struct of evaluation keys."""
    bootstrap, keyswitch = (
        [reader.blobs(reader.struct(key, 1), 0) for key in reader.structs(keys, field)]
        for field in (0, 1)
    )
    return bootstrap, keyswitch


def read_value(data: bytes) -> Words:
    """Read the words of a value."""
    reader = Reader(data)
    return reader.blobs(reader.struct(reader.root(), 0), 0)


def write_keys(
    keyset: Mapping[str, Any], bootstrap: Sequence[Words], keyswitch: Sequence[Words]
) -> bytes:
    """Write evaluation keys.

    Parameters
    ----------
    keyset : dict
        The ``keyset`` entry of the circuit's parameters.
    bootstrap, keyswitch : sequence of ndarray, uint64
        Words of each key.
    """
    return write_message(keys_node(keyset, bootstrap, keyswitch))


def keys_node(
    keyset: Mapping[str, Any], bootstrap: Sequence[Words], keyswitch: Sequence[Words]
) -> Node:
    """Make a struct of evaluation keys, as :func:`write_keys` does."""
    lists = [
        [key_node(info(key), words) for key, words in zip(keyset[kind], keys, strict=True)]
        for kind, info, keys in (
            ("lweBootstrapKeys", _bootstrap_info, bootstrap),
            ("lweKeyswitchKeys", _keyswitch_info, keyswitch),
        )
    ]
    return struct_node(b"", *map(structs_node, lists), None)


def key_node(info: Node, words: Words) -> Node:
    """Make a struct of a key: what it is, and its words."""
    return struct_node(b"", info, struct_node(b"", blobs_node(words)))


def _bootstrap_info(key: Mapping[str, Any]) -> Node:
    params = key["params"]
    names = ("levelCount", "baseLog", "glweDimension", "polynomialSize")
    first = struct.pack("<4Id", *(params[name] for name in names), params["variance"])
    return _key_info(key, first + struct.pack("<IHxxI", 64, 0, params["inputLweDimension"]))


def _keyswitch_info(key: Mapping[str, Any]) -> Node:
    params = key["params"]
    first = struct.pack(
        "<IIdIHxx", params["levelCount"], params["baseLog"], params["variance"], 64, 0
    )
    second = struct.pack("<II", params["inputLweDimension"], params["outputLweDimension"])
    return _key_info(key, first + second)


def _key_info(key: Mapping[str, Any], params: bytes) -> Node:
    ids = (key["id"], key["inputId"], key["outputId"])
    data = struct.pack("<3IH", *ids, _COMPRESSIONS[key["compression"]])
    return struct_node(data, struct_node(params, _native_modulus()))


def _native_modulus() -> Node:
    return struct_node(bytes(8), struct_node(b""))


def write_value(words: Words, gate: Gate) -> bytes:
    """Write ciphertexts of shape (n_rows, n_values, n_words) as a value of a gate's type."""
    shape, integer = _shape(words.shape), struct.pack("<I?x", gate.width, gate.is_signed)
    encryption = struct_node(
        struct.pack("<IId", gate.key, gate.dimension, gate.variance), _native_modulus()
    )
    ciphertext = struct_node(
        struct.pack("<IHH", 64, 1 if gate.seeded else 0, 0),
        _shape(words.shape[:-1]),
        shape,
        encryption,
        struct_node(integer, struct_node(b"")),
    )
    return write_message(
        struct_node(
            b"",
            struct_node(b"", blobs_node(words)),
            struct_node(struct.pack("<I", 64), shape),
            struct_node(bytes(8), ciphertext),
        )
    )


def _shape(dimensions: Sequence[int]) -> Node:
    return struct_node(b"", integers_node(dimensions))
