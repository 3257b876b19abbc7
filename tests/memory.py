"""Memory that a test may take."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def peak_below(most: float) -> Iterator[None]:
    """Fail if what Python allocates within has, at any time, this many bytes or more."""
    tracemalloc.start()
    try:
        yield
        n_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n_bytes < most
