"""Conditions that the compiler needs in its process: one thread, and open standard streams."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["compilation"]

# Threads that compile at the same time crash the process.
_LOCK = threading.Lock()


@contextmanager
def compilation() -> Iterator[None]:
    """Compile in one thread at a time, with standard streams that are open."""
    with _LOCK:
        _open_standard_streams()
        yield


def _open_standard_streams() -> None:
    """Open the null device for each closed standard stream, as a daemon may have them.

    Otherwise a file that the compiler opens gets the stream's descriptor, which the compiler
    refuses to close, and the process aborts.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # It gets the lowest that is free.
            os.open(os.devnull, os.O_RDWR)
