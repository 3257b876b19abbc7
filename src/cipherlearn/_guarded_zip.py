"""Guarded reading of zip archives, and of the JSON and arrays in them. It executes nothing.

Whatever bytes are read, memory has a ceiling. Damaged archives raise errors of zipfile and zlib
too, which :func:`refusing_damage` turns into one kind of error.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import struct
import zipfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "MAX_BYTES",
    "array_bytes",
    "array_from",
    "json_from",
    "read_file",
    "read_members",
    "refusing_damage",
]

# A network and its parameters are a few megabytes at most. More is a mistake, or an attack on the
# memory of whoever unpacks it.
MAX_BYTES = 1 << 28

# An object in JSON takes some twenty times the memory of its text.
_MAX_JSON_BYTES, _MAX_JSON_DEPTH = 1 << 23, 32

# The list of members at the end of an archive takes some ten times its size.
_MAX_DIRECTORY_BYTES = 1 << 22

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# The last bytes of an archive: signature, disks, members, length and start of the directory, length
# of a comment.
_END = struct.Struct("<4s8xIIH")

# NumPy's header as numpy.save writes it for a plain array. A pattern parses it, since numpy.load
# would evaluate it as a Python literal.
_HEADER = re.compile(
    rb"\{'descr': '([<>](?:f4|f8|i8))', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d+, ?)*\d*)\),? ?\} *\n"
)

# Characters that command a terminal, and halves of characters that no encoding takes.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


@contextlib.contextmanager
def refusing_damage(
    error: type[ValueError], rule: str, remedy: str, passing: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turn every error into one kind of error, those of the operating system too.

    Open files before, or an error of a missing file is turned too.

    Parameters
    ----------
    error : type of ValueError
        The kind. Errors of this kind pass unchanged.
    rule, remedy : str
        Sentences before and after the reason.
    passing : tuple of types, default=()
        Kinds of error that pass unchanged too.

    Examples
    --------
    >>> from cipherlearn._guarded_zip import refusing_damage
    >>> with refusing_damage(ValueError, "A list needs an item. It raised", "Append one."):
    ...     [][0]
    Traceback (most recent call last):
    ValueError: A list needs an item. It raised IndexError('list index out of range'). Append one.
    """
    try:
        yield
    except (error, *passing):
        raise
    except Exception as reason:
        raise error(f"{rule} {reason!r:.200}. {remedy}") from reason


def read_file(file: str | os.PathLike[str] | IO[bytes], most: int = MAX_BYTES) -> bytes:
    """Read a file of at most so many bytes. Of a larger one, read one more."""
    if isinstance(file, str | os.PathLike):
        with open(file, "rb") as opened:
            return opened.read(most + 1)
    file.seek(0)
    return file.read(most + 1)


def read_members(content: bytes) -> dict[str, bytes]:
    """Unpack every member of a zip archive.

    Parameters
    ----------
    content : bytes

    Returns
    -------
    dict of str to bytes

    Raises
    ------
    ValueError
        If the archive or its members claim more than ``MAX_BYTES``, a member is compressed by
        another method than zip's own or is smaller than it claims, or two have one name. Of a
        larger member, only as many bytes are read as it claims.
    zipfile.BadZipFile, zlib.error, EOFError
        If the archive is damaged, or a checksum is not that of the bytes read.
    """
    if len(content) > MAX_BYTES:
        raise ValueError(f"An archive holds at most {MAX_BYTES} bytes")
    _check_directory(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
        size = sum(entry.file_size for entry in entries)
        if size > MAX_BYTES:
            raise ValueError(f"An archive holds at most {MAX_BYTES} bytes. This one claims {size}")
        if any(entry.compress_type not in _METHODS for entry in entries):
            raise ValueError("Members of an archive must be stored or deflated")
        if len({entry.filename for entry in entries}) < len(entries):
            raise ValueError("Members of an archive must have names of their own")
        return {entry.filename: _unpack(archive, entry) for entry in entries}


def _check_directory(content: bytes) -> None:
    """Check the end of an archive, before zipfile makes an object of each member that it lists."""
    if len(content) < _END.size:
        raise ValueError(f"An archive has at least {_END.size} bytes. Got {len(content)}")
    signature, n_bytes, _, n_comment = _END.unpack_from(content, len(content) - _END.size)
    # Without it, zipfile would look for a larger one further ahead.
    if signature != b"PK\x05\x06" or n_comment:
        raise ValueError("An archive must end with the directory of its members")
    if content[-_END.size - 20 :].startswith(b"PK\x06\x07"):
        raise ValueError("An archive must have no Zip64 directory, which takes any number")
    if n_bytes > _MAX_DIRECTORY_BYTES:
        raise ValueError(
            f"The directory of an archive has at most {_MAX_DIRECTORY_BYTES} bytes. Got {n_bytes}"
        )


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    with archive.open(entry) as member:
        # Without a number, zipfile would inflate all that follows before it looks at the claim.
        content = member.read(entry.file_size + 1)
    if len(content) != entry.file_size:
        raise ValueError(f"A member must have the {entry.file_size} bytes that it claims")
    return content


def json_from(content: bytes) -> Any:
    """Parse JSON, or raise ValueError if it is not, too large or deep, or has control characters.

    Examples
    --------
    >>> from cipherlearn._guarded_zip import json_from
    >>> json_from(b'{"names": ["a", "b"]}')
    {'names': ['a', 'b']}
    """
    if len(content) > _MAX_JSON_BYTES:
        raise ValueError(f"JSON has at most {_MAX_JSON_BYTES} bytes here. Got {len(content)}")
    try:
        value = json.loads(content)
    except RecursionError as error:
        raise ValueError(f"JSON must be at most {_MAX_JSON_DEPTH} levels deep here") from error
    level = [value]
    for _ in range(_MAX_JSON_DEPTH):
        parts: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                parts += each
                parts += each.values()
            elif isinstance(each, list):
                parts += each
            elif isinstance(each, str) and _CONTROL.search(each):
                raise ValueError(f"Texts in JSON must have no control characters. Got {each!r:.50}")
        if not parts:
            return value
        level = parts
    raise ValueError(f"JSON must be at most {_MAX_JSON_DEPTH} levels deep here")


def array_bytes(array: ArrayLike) -> bytes:
    """Write an array in NumPy's format."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=False)
    return buffer.getvalue()


def array_from(content: bytes) -> NDArray[Any]:
    """Read an array of int64, float64 or float32 that :func:`array_bytes` wrote.

    Raises
    ------
    ValueError
        If the content is not such an array, whole and with nothing behind it.

    Examples
    --------
    >>> from cipherlearn._guarded_zip import array_bytes, array_from
    >>> array_from(array_bytes([[1, 2], [3, 4]]))
    array([[1, 2],
           [3, 4]])
    """
    start = 10 + int.from_bytes(content[8:10], "little")
    header = _HEADER.fullmatch(content[10:start])
    if not content.startswith(b"\x93NUMPY\x01\x00") or header is None:
        raise ValueError(
            "An array must be of int64, float64 or float32, with the header that numpy.save "
            f"writes. Got {content[:100]!r}"
        )
    dtype = np.dtype(header[1].decode())
    shape = tuple(int(size) for size in header[3].replace(b" ", b"").split(b",") if size)
    if math.prod(shape) * dtype.itemsize != len(content) - start:
        raise ValueError(f"An array must hold the {shape} numbers that its header names")
    numbers = np.frombuffer(memoryview(content)[start:], dtype)
    return numbers.reshape(shape, order="F" if header[2] == b"True" else "C")
