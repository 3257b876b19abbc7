"""Broken pipes, which Concrete's runtime makes fatal."""

from __future__ import annotations

import ctypes
import signal

__all__ = ["keep_broken_pipes_errors"]


def keep_broken_pipes_errors() -> None:
    """Undo what the first run of a circuit does to SIGPIPE.

    Its runtime installs a handler that ends the process. Python ignores the signal, so that writing
    to a closed pipe or connection raises BrokenPipeError; a server or a notebook relies on it.
    """
    if signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN:
        # Unlike signal.signal, this may be called in every thread.
        set_signal = ctypes.pythonapi.PyOS_setsig
        set_signal.argtypes, set_signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
        set_signal(signal.SIGPIPE, int(signal.SIG_IGN))
