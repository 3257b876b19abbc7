"""Evaluation keys on disk: named by their content, whole or absent, oldest out first."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from cipherlearn._exceptions import MessageError, UnknownKeyError

__all__ = ["KeyStore", "Upload", "read_keys"]

_KEY_ID = re.compile(r"[0-9a-f]{64}")
_PARTIAL = re.compile(r"[0-9a-f]{64}\.\w+\.part")


class KeyStore:
    """Keys of many clients in a directory, at most ``max_bytes`` of them.

    A key file appears under its name only once it is complete, checked and on disk. What an
    interrupted upload left is removed at the next start.

    Parameters
    ----------
    directory : Path
    max_bytes : int
    check : callable
        Raises MessageError unless its argument holds evaluation keys for the model.
    """

    def __init__(self, directory: Path, max_bytes: int, check: Callable[[bytes], object]) -> None:
        self.directory = directory
        self._max_bytes = max_bytes
        self._check = check
        self._lock = threading.Lock()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._hold_directory()
        for path in directory.iterdir():
            if _PARTIAL.fullmatch(path.name):
                path.unlink()
        found = [path for path in directory.iterdir() if _KEY_ID.fullmatch(path.name)]
        found.sort(key=lambda path: path.stat().st_mtime_ns)
        self._sizes = OrderedDict((path.name, path.stat().st_size) for path in found)

    def _hold_directory(self) -> None:
        """Keep other services out, which would count and remove on their own."""
        self._lock_file = (self.directory / ".lock").open("w")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise ValueError(
                f"Each service needs a data directory of its own. {self.directory} is in use by "
                "another. Name one with --data-dir."
            ) from error

    def close(self) -> None:
        """Leave the directory to others."""
        self._lock_file.close()

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._sizes

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def n_bytes(self) -> int:
        """Disk space in use."""
        with self._lock:
            return sum(self._sizes.values())

    def use(self, key_id: str) -> None:
        """Note that keys are used, or raise UnknownKeyError."""
        with self._lock:
            try:
                os.utime(self.directory / key_id)
                self._sizes.move_to_end(key_id)
            except (KeyError, FileNotFoundError) as error:
                self._sizes.pop(key_id, None)
                raise _unknown(key_id) from error

    def remove(self, key_id: str) -> None:
        """Remove keys, or raise UnknownKeyError."""
        with self._lock:
            if self._sizes.pop(key_id, None) is None:
                raise _unknown(key_id)
            (self.directory / key_id).unlink(missing_ok=True)

    def upload(self, key_id: str) -> Upload:
        """Begin to receive keys, or raise MessageError if there can be none with this id."""
        if not _KEY_ID.fullmatch(key_id):
            raise MessageError(
                f"A key id is the SHA-256 of evaluation keys, 64 hexadecimal digits. Got {key_id!r}"
            )
        return Upload(self, key_id)

    def _keep(self, key_id: str, partial: Path, n_bytes: int) -> None:
        self._check(partial.read_bytes())
        with self._lock:
            self._sizes.pop(key_id, None)
            while self._sizes and sum(self._sizes.values()) + n_bytes > self._max_bytes:
                oldest, _ = self._sizes.popitem(last=False)
                (self.directory / oldest).unlink(missing_ok=True)
            os.replace(partial, self.directory / key_id)
            descriptor = os.open(self.directory, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
            self._sizes[key_id] = n_bytes


class Upload:
    """Keys on their way into a store. Leaving the context without :meth:`commit` drops them."""

    def __init__(self, store: KeyStore, key_id: str) -> None:
        self._store = store
        self._key_id = key_id
        self._digest = hashlib.sha256()
        self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115
            dir=store.directory, prefix=f"{key_id}.", suffix=".part", delete=False
        )

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        Path(self._file.name).unlink(missing_ok=True)

    def write(self, chunk: bytes) -> None:
        """Append a part of the keys."""
        self._digest.update(chunk)
        self._file.write(chunk)

    def commit(self) -> None:
        """Check the keys and put them into the store, or raise MessageError."""
        if self._digest.hexdigest() != self._key_id:
            raise MessageError(
                "Evaluation keys are addressed by their SHA-256. These have "
                f"{self._digest.hexdigest()}, and were sent as {self._key_id}."
            )
        n_bytes = self._file.tell()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._store._keep(self._key_id, Path(self._file.name), n_bytes)


def read_keys(directory: Path, key_id: str) -> bytes:
    """Read keys from a store's directory, or raise UnknownKeyError if they are not there whole."""
    try:
        keys = (directory / key_id).read_bytes()
    except FileNotFoundError as error:
        raise _unknown(key_id) from error
    if hashlib.sha256(keys).hexdigest() != key_id:
        raise _unknown(key_id)
    return keys


def _unknown(key_id: str) -> UnknownKeyError:
    return UnknownKeyError(
        f"The server must have the evaluation keys {key_id}. It has not, or no longer. Upload "
        "them again."
    )
