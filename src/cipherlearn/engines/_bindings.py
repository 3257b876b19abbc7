"""Concrete's compiled bindings, without their side effects on the process."""

from __future__ import annotations

import atexit
import ctypes
import signal
import warnings

with warnings.catch_warnings():
    # concrete declares its namespace through pkg_resources, which warns on every import.
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    from concrete import compiler

__all__ = ["compiler", "keep_broken_pipes_errors"]

# After a circuit has run, this exit handler ends the process with status 0 even after an error.
if hasattr(compiler, "_terminate_df_parallelization"):
    atexit.unregister(compiler._terminate_df_parallelization)


def keep_broken_pipes_errors() -> None:
    """Undo what the first run of a circuit, or its first simulation, does to SIGPIPE.

    Its runtime installs a handler that ends the process. Python ignores the signal, so that writing
    to a closed pipe or connection raises BrokenPipeError; a server or a notebook relies on it.
    """
    if signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN:
        # Unlike signal.signal, this may be called in every thread.
        set_signal = ctypes.pythonapi.PyOS_setsig
        set_signal.argtypes, set_signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
        set_signal(signal.SIGPIPE, int(signal.SIG_IGN))
