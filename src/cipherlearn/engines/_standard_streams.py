"""What the compiler needs of the process that it runs in."""

from __future__ import annotations

import os

__all__ = ["open_standard_streams"]


def open_standard_streams() -> None:
    """Open the null device for standard streams that are closed, as those of daemons may be.

    A file of the compiler's would get the descriptor of one, be taken for a stream that nobody
    may close, and abort the process.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # It gets the lowest that is free.
            os.open(os.devnull, os.O_RDWR)
