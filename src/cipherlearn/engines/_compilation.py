"""What the compiler needs of the process that it runs in."""

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
    """Open the null device for those that are closed, as a daemon's may be.

    A file of the compiler's would get the descriptor of one, be taken for a stream that nobody
    may close, and abort the process.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # It gets the lowest that is free.
            os.open(os.devnull, os.O_RDWR)
