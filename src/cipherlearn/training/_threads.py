"""Threads of torch: one for small steps, and the setting of before afterwards.

The threads of a step wait for each other by spinning. Where a step takes microseconds, that is most
of the time, and on a busy machine nearly all of it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

__all__ = ["one_thread", "threads_for"]

# Multiplications of a matrix product that takes milliseconds, which threads are worth.
_WORTH_THREADS = 2**26

_lock = threading.Lock()
_local = threading.local()
_n_inside = 0
_before = 1


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread within.

    torch has one setting for each thread of Python and one for those to come. Both are what they
    were before once the last of the threads has left. Within itself it does nothing.

    Examples
    --------
    >>> import torch
    >>> from cipherlearn.training._threads import one_thread
    >>> before = torch.get_num_threads()
    >>> with one_thread():
    ...     torch.get_num_threads()
    1
    >>> torch.get_num_threads() == before
    True
    """
    global _n_inside, _before
    if getattr(_local, "inside", False):
        yield
        return
    with _lock:
        # While others are inside, a new thread of Python begins with theirs.
        if _n_inside == 0:
            _before = torch.get_num_threads()
        _n_inside += 1
    try:
        _local.inside = True
        torch.set_num_threads(1)
        yield
    finally:
        with _lock:
            _n_inside -= 1
            torch.set_num_threads(_before)
        _local.inside = False


def threads_for(n_rows: int, n_weights: int) -> contextlib.AbstractContextManager[None]:
    """Choose the threads for steps of ``n_rows`` through a layer of ``n_weights``."""
    return one_thread() if n_rows * n_weights < _WORTH_THREADS else contextlib.nullcontext()
