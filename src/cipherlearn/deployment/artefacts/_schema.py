"""Schema of a skops file: what it names, and how much it unpacks to.

Readers of skops, NumPy and SciPy inflate whatever an archive says, and skops makes an object once
and hands it out wherever its number stands. Here a file is rewritten so that it unpacks to no more
than it holds.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from typing import Any

import numpy as np

from cipherlearn._guarded_zip import MAX_BYTES, read_members

__all__ = ["repacked"]

# What skops says of an object takes some twenty times the memory of its text. Twenty times that of
# the largest pipeline in the tests is 3 MB, and a category or a word takes 300 bytes.
_MAX_SCHEMA_BYTES = 1 << 23

# For each of these skops copies the names that it trusts, some kilobytes.
_MAX_OBJECTS, _OBJECTS = 1 << 14, ("FunctionNode", "ObjectNode")

# Memory of a number that becomes an object in Python, for each byte of an array.
_BOXED = 32


def repacked(content: bytes) -> tuple[bytes, set[tuple[str, str]]]:
    """Return a file that unpacks to no more than it holds, and loader and name of what it holds.

    Raises
    ------
    ValueError, TypeError, KeyError
        If the file is damaged or too large.
    """
    members, size = read_members(content), 0
    for name, member in members.items():
        # Of a sparse matrix, an archive in the archive.
        parts = read_members(member) if member.startswith(b"PK") else {}
        for array in parts.values() if parts else [member]:
            _check_array(array)
        members[name] = _packed(parts) if parts else member
        size += len(members[name])
        if size > MAX_BYTES:
            raise ValueError(f"It unpacks to more than {MAX_BYTES} bytes")
    if len(members["schema.json"]) > _MAX_SCHEMA_BYTES:
        raise ValueError(f"schema.json has at most {_MAX_SCHEMA_BYTES} bytes")
    schema = json.loads(members["schema.json"])
    # The oldest format names functions elsewhere.
    if type(schema["protocol"]) is not int or schema["protocol"] < 1:
        raise ValueError(f"Its protocol must be at least 1. Got {schema['protocol']!r:.20}")
    nodes = _check_nodes(schema, {name: len(member) for name, member in members.items()})
    members["schema.json"] = json.dumps(schema).encode()
    return _packed(members), nodes


def _check_nodes(schema: Any, sizes: dict[str, int]) -> set[tuple[str, str]]:
    """Remove the numbers of nodes, and return their loaders and names.

    Without numbers, a node is what is written where it stands, and is made as often as it is
    written. skops writes each of them in full.
    """
    nodes, n_objects, n_bytes = set(), 0, 0
    waiting = [(schema, False)]
    while waiting:
        value, is_boxed = waiting.pop()
        if isinstance(value, list):
            waiting += [(part, is_boxed) for part in value]
        if not isinstance(value, dict):
            continue
        if not isinstance(value.get("__id__"), dict):
            value.pop("__id__", None)
        loader = value.get("__loader__")
        if isinstance(loader, str):
            name = f"{value['__module__']}.{value['__class__']}"
            # Their names do not count.
            if loader != "JsonNode":
                nodes.add((loader, name))
            n_objects += loader in _OBJECTS
            is_boxed |= loader == "BytearrayNode" or (
                loader == "NdArrayNode" and (value["type"] == "json" or name != "numpy.ndarray")
            )
            if loader == "DictNode":
                _check_keys(value["key_types"])
        # Each node that names a file reads it anew.
        n_bytes += sizes.get(str(value.get("file")), 0) * (_BOXED if is_boxed else 1)
        waiting += [(part, is_boxed) for part in value.values()]
    if n_bytes > MAX_BYTES:
        raise ValueError(f"It holds more than {MAX_BYTES} bytes, with what it names more than once")
    if n_objects > _MAX_OBJECTS:
        raise ValueError(f"It holds at most {_MAX_OBJECTS} objects and functions. Got {n_objects}")
    return nodes


def _check_keys(key_types: dict[str, Any]) -> None:
    """Raise ValueError if what skops calls with each key is no type."""
    loaders = {key_type["__loader__"] for key_type in key_types["content"]}
    if key_types["__loader__"] != "ListNode" or not loaders <= {"TypeNode"}:
        raise ValueError("Keys of a dictionary must have types")


def _check_array(content: bytes) -> None:
    """Raise ValueError if an array claims other than it holds, which NumPy would allocate."""
    npy: Any = np.lib.format
    if not content.startswith(npy.MAGIC_PREFIX):
        return
    file = io.BytesIO(content)
    version = npy.read_magic(file)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
    shape, _, dtype = read_header(file)
    if not dtype.itemsize or math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise ValueError(f"An array must hold the {shape} values that its header names")


def _packed(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(name), member)
    return buffer.getvalue()
