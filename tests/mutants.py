"""Mutants of bytes, JSON, arrays and archives: valid content with something odd in it."""

from __future__ import annotations

import hashlib
import io
import json
import random
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from cipherlearn.deployment._messages import Kind, Message
from cipherlearn.deployment.artefacts._archive import Archive

_EDGES = (0, 1, 0x7F, 0x80, 0xFF)


def mutated(rng: random.Random, content: bytes) -> bytes:
    """Change, cut, repeat or insert bytes. Half of all changes are near an end."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not data:
            break
        at = rng.choice((rng.randrange(len(data)), rng.randrange(min(len(data), 400))))
        at = at if rng.random() < 0.75 else len(data) - 1 - at
        change = rng.randrange(7)
        if change == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif change == 1:
            data[at] = rng.choice(_EDGES)
        elif change == 2:
            size = rng.choice((2, 4, 8))
            value = rng.choice((0, 1, 2**31, 2**63, 2**64 - 1, rng.getrandbits(64)))
            data[at : at + size] = (value % 256**size).to_bytes(size, rng.choice(("little", "big")))
        elif change == 3:
            data[at : at + 8] = rng.randbytes(8)
        elif change == 4:
            data[at:at] = rng.randbytes(rng.randrange(1, 40))
        elif change == 5:
            del data[at : at + rng.randrange(1, 40)]
        elif rng.random() < 0.5:
            del data[at:]
        else:
            data += data[at : at + 500]
    return bytes(data)


_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 63, 64, 65, 2**20, 2**31, 2**32, 2**63, 2**64, 10**30),
    *(0.0, -0.5, 1e-300, 1e308, float("inf"), float("nan"), 1.5, 1e-31, -(10**12)),
    *(
        "",
        "x",
        "0",
        "1e5",
        "\x1b[2J\x07",
        "\ud800",
        "\u202e",
        "a" * 100_000,
        "O",
        "V8",
        "<U9",
        "<U999",
    ),
    *([], {}, [None], [[]], {"a": 1}, [0] * 5000),
)

# Stands for lists so deep that only a loop can write them.
_DEEP = "deep"


def mutated_json(rng: random.Random, content: bytes) -> bytes:
    """Replace, drop, repeat or change a value somewhere."""
    whole = {"": json.loads(content)}
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(whole))
        parent, key = rng.choice(places)
        value, change = parent[key], rng.randrange(6)
        if change == 0 and parent is not whole:
            del parent[key]
        elif change == 1 and isinstance(parent, list):
            parent.insert(rng.randrange(len(parent) + 1), value)
        elif change == 2 and type(value) in (int, float):
            by = rng.choice((1, -1, 2, 100, 2**20))
            parent[key] = rng.choice((value + by, value * by, -value, float(value), value // 2))
        elif change == 3 and isinstance(value, str):
            edited = mutated(rng, value.encode("utf-8", "surrogatepass"))
            parent[key] = edited.decode("latin-1")
        elif change == 4:
            other, at = rng.choice(places)
            parent[key] = other[at] if not _holds(other[at], parent) else None
        else:
            parent[key] = rng.choice((*_ODD, _DEEP))
    depth = rng.choice((10, 900, 100_000))
    text = json.dumps(whole[""]).replace(json.dumps(_DEEP), "[" * depth + "]" * depth)
    return text.encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Give every container and key in JSON."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def _holds(value: Any, part: Any) -> bool:
    return value is part or (
        isinstance(value, dict | list) and any(p is part for p, _ in _places(value))
    )


def mutated_array(rng: random.Random, content: bytes) -> bytes:
    """Change numbers, or what the header says of them."""
    if rng.random() < 0.3:
        return mutated(rng, content)
    if rng.random() < 0.4:
        text, start = content[10:].split(b"\n")[0].decode(), 10 + content[10:].index(b"\n") + 1
        shapes = ("()", "(0,)", "(-1,)", "(2, 0)", "(10**9,)", "(1000000000000,)", "(1" + ",1" * 40)
        for old, new in (
            ("'<i8'", rng.choice(("'<f8'", "'|O'", "'<U4'", "'>i8'", "'i1'", "[('a', '<i8')]"))),
            ("(", rng.choice(("(" * 300, "(1, ", "((", "[", "(lambda: 0)("))),
            (text[text.index("(") :], rng.choice(shapes) + ", }"),
            ("'shape'", rng.choice(("'form'", "'shape': (1,), 'shape'"))),
            ("False", rng.choice(("True", "None", "1", "0x", '"\\'))),
        ):
            if rng.random() < 0.4:
                text = text.replace(old, new, 1)
        head = text.encode().ljust(rng.choice((0, 117))) + b"\n"
        size = 2 if rng.random() < 0.8 else 4
        version = bytes([rng.choice((1, 1, 1, 2, 3)), 0])
        return b"\x93NUMPY" + version + len(head).to_bytes(size, "little") + head + content[start:]
    array = np.load(io.BytesIO(content))
    values = array.copy().ravel(order="K")
    for _ in range(rng.choice((1, 1, 3, 50))):
        extreme = rng.choice((0, 1, -1, 2, 5, 2**31, 2**53, 2**62, 2**63 - 1, -(2**63)))
        if values.dtype.kind == "f":
            extreme = rng.choice((extreme, np.nan, np.inf, -np.inf, 1e300, 1e-300, 0.5))
        with np.errstate(all="ignore"):
            values[rng.randrange(values.size)] = np.array(extreme, dtype=np.float64).astype(
                values.dtype
            )
    change = rng.randrange(4)
    if change == 0:
        values = np.resize(values, rng.choice((1, values.size + 1, 2 * values.size)))
    elif change == 1:
        values = values.astype(rng.choice((np.int8, np.uint64, np.float32, np.float64, np.bool_)))
    if change != 0 and array.ndim > 1 and rng.random() < 0.7:
        values = values.reshape(array.shape)
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def mutated_zip(rng: random.Random, content: bytes) -> bytes:
    """Change a member in its own way and pack again, or change the archive's bytes."""
    if rng.random() < 0.15:
        return mutated(rng, content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        mutate_member(rng, members)
    return packed(rng, members)


def mutate_member(rng: random.Random, members: dict[str, bytes]) -> None:
    name = rng.choice(sorted(members))
    change = rng.randrange(20)
    if change == 0 and len(members) > 1:
        del members[name]
    elif change == 1:
        members[rng.choice(("x", "../x", "a" * 300, "é", name + "x"))] = members[name]
    elif change == 2:
        members[name] = members[rng.choice(sorted(members))]
    elif change == 3:
        members[name] = mutated(rng, members[name])
    else:
        try:
            members[name] = _mutated_by_kind(rng, name, members[name])
        except Exception:
            # An earlier change has left nothing of its kind.
            members[name] = mutated(rng, members[name])


def _mutated_by_kind(rng: random.Random, name: str, content: bytes) -> bytes:
    if name.endswith(".json"):
        return mutated_json(rng, content)
    if name.endswith(".npy"):
        return mutated_array(rng, content)
    if name.endswith(".skops"):
        return mutated_zip(rng, content)
    return mutated(rng, content)


def packed(rng: random.Random, members: dict[str, bytes]) -> bytes:
    """Pack members to a zip archive."""
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if rng.random() < 0.02:
        methods = (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice(methods)) as archive:
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(name), member, archive.compression)
    return buffer.getvalue()


def mutated_artefact(rng: random.Random, kind: str, content: bytes) -> bytes:
    """Change an artefact: mostly members, whose checksums are right again."""
    if rng.random() < 0.1:
        return mutated_zip(rng, content)
    members = Archive.from_bytes(content, kind).members
    for _ in range(rng.choice((1, 1, 1, 2))):
        if kind == "server" and rng.random() < 0.8:
            _mutate_served(rng, members)
        else:
            mutate_member(rng, members)
    return Archive(kind, members).to_bytes()


def _mutate_served(rng: random.Random, members: dict[str, bytes]) -> None:
    """Change the program or the client in a server.zip, which states the checksum of both."""
    try:
        client = Archive.from_bytes(members["client.zip"], "client").members
        described, program = json.loads(client["client.json"]), members["program.zip"]
        if rng.random() < 0.6:
            members["program.zip"] = mutated_zip(rng, program)
            described["program_sha256"] = hashlib.sha256(members["program.zip"]).hexdigest()
            client["client.json"] = json.dumps(described).encode()
        else:
            mutate_member(rng, client)
    except Exception:
        # An earlier change has left nothing to change.
        return
    members["client.zip"] = Archive("client", client).to_bytes()


def mutated_message(rng: random.Random, content: bytes, kind: Kind) -> bytes:
    """Change a message: mostly its payload, whose length and checksum are right again."""
    if rng.random() < 0.5:
        return mutated(rng, content)
    sent = Message.from_bytes(content, kind)
    payload = mutated(rng, sent.payload) if sent.payload else rng.randbytes(rng.randrange(99))
    return Message(kind, sent.scope, sent.key, payload, sent.answers).to_bytes()
