"""Guarded reading of zip archives and of the arrays in them. It executes nothing."""

from __future__ import annotations

import contextlib
import io
import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["array_bytes", "array_from", "read_members", "refusing_damage"]

# A network and its parameters are a few megabytes at most. More is a mistake, or an attack on the
# memory of whoever unpacks it.
MAX_BYTES = 1 << 30

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# Errors that damaged or crafted content can cause.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)


@contextlib.contextmanager
def refusing_damage(error: type[ValueError], rule: str, remedy: str) -> Iterator[None]:
    """Turn all errors of damaged content into one kind of error.

    Parameters
    ----------
    error : type of ValueError
        The kind. Errors of this kind pass unchanged.
    rule, remedy : str
        Sentences before and after the reason.
    """
    try:
        yield
    except error:
        raise
    except _DAMAGE as reason:
        raise error(f"{rule} {reason!r:.200}. {remedy}") from reason


def read_members(file: str | os.PathLike[str] | IO[bytes]) -> dict[str, bytes]:
    """Read every member of a zip archive into memory.

    Parameters
    ----------
    file : str, path or binary file

    Returns
    -------
    dict of str to bytes

    Raises
    ------
    ValueError
        If they are larger than ``MAX_BYTES`` once unpacked, compressed by another method than
        zip's own, or two have one name.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        size = sum(entry.file_size for entry in entries)
        if size > MAX_BYTES:
            raise ValueError(f"An archive holds at most {MAX_BYTES} bytes. This one claims {size}")
        if any(entry.compress_type not in _METHODS for entry in entries):
            raise ValueError("Members of an archive must be stored or deflated")
        if len({entry.filename for entry in entries}) < len(entries):
            raise ValueError("Members of an archive must have names of their own")
        # zipfile unpacks at most the size that a member claims.
        return {entry.filename: archive.read(entry) for entry in entries}


def array_bytes(array: ArrayLike) -> bytes:
    """Write an array in NumPy's format."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=False)
    return buffer.getvalue()


def array_from(content: bytes) -> NDArray:
    """Read what :func:`array_bytes` wrote, or raise ValueError."""
    file = io.BytesIO(content)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[np.lib.format.read_magic(file)]
    shape, _, dtype = read_header(file)
    # A header may claim more than follows, which NumPy would allocate.
    if math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise ValueError(f"An array must hold the {shape} numbers that its header names")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)
