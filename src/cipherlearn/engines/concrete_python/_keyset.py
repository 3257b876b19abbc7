"""A client's keys, the secret ones included, as Concrete serializes them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

from cipherlearn._exceptions import MessageError
from cipherlearn.engines.kernels import Parameters, keys_for
from cipherlearn.engines.kernels._capnp import (
    Node,
    Reader,
    struct_node,
    structs_node,
    write_message,
)
from cipherlearn.engines.kernels._wire import key_node, keys_node, read_key_lists

__all__ = ["largest_keys", "rewritten_keys"]

# Bound of the bytes of a serialized key besides its words.
_STRUCTURE_BYTES = 4096


def largest_keys(specs: bytes) -> int:
    """Bound the length of all keys of a client, serialized."""
    parameters, dimensions = Parameters.from_specs(specs), _dimensions(json.loads(specs)["keyset"])
    n_keys = 1 + len(dimensions) + len(parameters.key_shapes)
    return parameters.sent_bytes + 8 * sum(dimensions) + n_keys * _STRUCTURE_BYTES


def rewritten_keys(serialized: bytes, specs: bytes) -> bytes:
    """Write all keys of a client anew, so that the engine gets their numbers and nothing else.

    Malformed structure, or a key that is shorter than its parameters say, can crash it.

    Parameters
    ----------
    serialized : bytes
        Keys as the engine serialized them, or any bytes that a file holds in their place.
    specs : bytes
        Cryptographic parameters of the model, in JSON.

    Raises
    ------
    MessageError
        If the bytes are not keys, or the keys have other parameters.
    """
    parameters, keyset = Parameters.from_specs(specs), json.loads(specs)["keyset"]
    reader = Reader(serialized)
    root = reader.root()
    bootstrap, keyswitch = read_key_lists(reader, reader.struct(root, 0))
    secret = [
        reader.blobs(reader.struct(key, 1), 0) for key in reader.structs(reader.struct(root, 1), 0)
    ]
    dimensions = _dimensions(keyset)
    lengths = list(map(len, secret))
    if lengths != dimensions:
        raise MessageError(
            f"The secret keys of this model must have {dimensions} bits. Got {lengths}: they are "
            "another model's, or damaged. Use this model's file of keys, or generate new ones."
        )
    largest = max((int(words.max()) for words in secret), default=0)
    if largest > 1:
        raise MessageError(
            f"Secret keys must be made of words 0 and 1. Got {largest}: they are damaged. Use a "
            "copy of the file of keys, or generate new ones."
        )
    keys_for(parameters, bootstrap, keyswitch)
    infos = map(_secret_info, keyset["lweSecretKeys"])
    secrets = structs_node([key_node(*key) for key in zip(infos, secret, strict=True)])
    evaluation = keys_node(keyset, bootstrap, keyswitch)
    return write_message(struct_node(b"", evaluation, struct_node(b"", secrets)))


def _dimensions(keyset: Mapping[str, Any]) -> list[int]:
    return [key["params"]["lweDimension"] for key in keyset["lweSecretKeys"]]


def _secret_info(key: Mapping[str, Any]) -> Node:
    params = struct.pack("<IIH", key["params"]["lweDimension"], 64, 0)
    return struct_node(struct.pack("<I", key["id"]), struct_node(params))
