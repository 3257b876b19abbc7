"""Temporary folders, which go with their process, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
import weakref
from pathlib import Path

__all__ = ["make_folder"]

# Prefix of the folders' names.
_FOLDERS = "cipherlearn-circuit-"

# Seconds for which a folder may not be locked yet.
_NEW_SECONDS = 60


def make_folder(owner: object) -> str:
    """Make a folder that lasts as long as its owner, and remove what killed processes left.

    Parameters
    ----------
    owner : object

    Returns
    -------
    str
    """
    for left in Path(tempfile.gettempdir()).glob(f"{_FOLDERS}*"):
        _remove_if_left(left)
    folder = tempfile.mkdtemp(prefix=_FOLDERS)
    # The system frees it with the process, however that ends.
    lock = os.open(folder, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_SH)
    weakref.finalize(owner, os.close, lock)
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder


def _remove_if_left(folder: Path) -> None:
    with contextlib.suppress(OSError):  # it is another user's, or gone
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            status = os.fstat(lock)
            if status.st_uid == os.geteuid() and time.time() - status.st_mtime > _NEW_SECONDS:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
