"""Store of evaluation keys on disk: named by their content, whole or absent, oldest out first."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from cipherlearn._exceptions import MessageError, UnknownKeyError
from cipherlearn.deployment.artefacts._archive import sync_directory

__all__ = ["KeyStore", "Upload", "read_keys", "space_of"]

_KEY_ID = re.compile(r"[0-9a-f]{64}")
_PARTIAL = re.compile(r"[0-9a-f]{64}\.\w+\.part")

# A file takes whole blocks, and an inode, an entry of the directory and one in memory. A disk may
# have an inode for no more than every 16384 bytes.
_BLOCK_BYTES, _LEAST_BYTES = 4096, 65536


def space_of(n_bytes: int) -> int:
    """Return the bytes that keys of a length count in a store: blocks and one more, or 65536."""
    return max(_LEAST_BYTES, (-(-n_bytes // _BLOCK_BYTES) + 1) * _BLOCK_BYTES)


class KeyStore:
    """Keys of many clients in a directory, which take at most ``max_bytes``.

    Keys count as many blocks of 4096 bytes as their file takes, and one more, and at least 65536
    bytes. Without that, keys of a few bytes would fill a disk, and memory, long before the limit.

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
        found = []
        with os.scandir(directory) as entries:
            for entry in entries:
                if _PARTIAL.fullmatch(entry.name):
                    os.unlink(entry.path)
                elif _KEY_ID.fullmatch(entry.name):
                    found.append(self._found(entry))
        self._sizes = OrderedDict((name, space) for _, name, space in sorted(found))
        self._n_bytes = sum(self._sizes.values())

    def _found(self, entry: os.DirEntry[str]) -> tuple[int, str, int]:
        """Return when keys were used, their name and their space."""
        status = entry.stat(follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise ValueError(
                f"A key store must hold keys as files. {entry.path} is none. Move it away."
            )
        return status.st_mtime_ns, entry.name, space_of(status.st_size)

    def _hold_directory(self) -> None:
        """Keep other services out, which would count and remove on their own."""
        self._lock_file = open(self.directory / ".lock", "ab", opener=_not_a_link)  # noqa: SIM115
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
        return self._n_bytes

    def use(self, key_id: str) -> None:
        """Note that keys are used, or raise UnknownKeyError."""
        with self._lock:
            try:
                self._sizes.move_to_end(key_id)
                os.utime(self.directory / key_id, follow_symlinks=False)
            except (KeyError, FileNotFoundError) as error:
                self._forget(key_id)
                raise _unknown(key_id) from error
            except OSError as error:
                # Where the store cannot be written, what it has can be read.
                if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise

    def remove(self, key_id: str) -> None:
        """Remove keys, or raise UnknownKeyError."""
        with self._lock:
            if key_id not in self._sizes:
                raise _unknown(key_id)
            self._delete(key_id)

    def remove_damaged(self, key_id: str) -> bool:
        """Remove keys unless they are whole, and return whether there were any to remove."""
        path = self.directory / key_id
        try:
            found: int | None = path.lstat().st_ino
        except FileNotFoundError:
            found = None
        with contextlib.suppress(UnknownKeyError):
            read_keys(self.directory, key_id)
            return False
        with self._lock:
            # Others may have taken their place meanwhile.
            replaced = path.exists() and path.lstat().st_ino != found
            if replaced or key_id not in self._sizes:
                return False
            self._delete(key_id)
        return True

    def upload(self, key_id: str) -> Upload:
        """Begin to receive keys, or raise MessageError if there can be none with this id."""
        if not _KEY_ID.fullmatch(key_id):
            raise MessageError(
                f"A key id is the SHA-256 of evaluation keys, 64 hexadecimal digits. Got {key_id!r}"
            )
        return Upload(self, key_id)

    def _delete(self, key_id: str) -> None:
        (self.directory / key_id).unlink(missing_ok=True)
        self._forget(key_id)

    def _forget(self, key_id: str) -> None:
        self._n_bytes -= self._sizes.pop(key_id, 0)

    def _keep(self, key_id: str, partial: Path, n_bytes: int) -> list[str]:
        self._check(partial.read_bytes())
        path = self.directory / key_id
        with self._lock:
            # Before others go, which would be lost for nothing if this failed.
            os.replace(partial, path)
            self._forget(key_id)
            space = space_of(n_bytes)
            try:
                evicted = self._make_room(space)
            except OSError:
                os.replace(path, partial)
                raise
            self._sizes[key_id] = space
            self._n_bytes += space
        # A disk may take long for it, and others need the lock.
        sync_directory(self.directory)
        return evicted

    def _make_room(self, space: int) -> list[str]:
        """Delete the keys that were not used for longest, and return their ids."""
        evicted: list[str] = []
        while self._sizes and self._n_bytes + space > self._max_bytes:
            oldest = next(iter(self._sizes))
            self._delete(oldest)
            evicted.append(oldest)
        return evicted


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

    def commit(self) -> list[str]:
        """Check the keys and put them into the store, or raise MessageError.

        Returns
        -------
        list of str
            Ids of the keys that had to go for them.
        """
        if self._digest.hexdigest() != self._key_id:
            raise MessageError(
                "Evaluation keys are addressed by their SHA-256. These have "
                f"{self._digest.hexdigest()}, and were sent as {self._key_id}."
            )
        n_bytes = self._file.tell()
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._store._keep(self._key_id, Path(self._file.name), n_bytes)


def read_keys(directory: Path, key_id: str) -> bytes:
    """Read keys from a store's directory, or raise UnknownKeyError if they are not there whole."""
    try:
        with open(directory / key_id, "rb", opener=_not_a_link) as file:
            keys = file.read()
    except FileNotFoundError as error:
        raise _unknown(key_id) from error
    if hashlib.sha256(keys).hexdigest() != key_id:
        raise _unknown(key_id)
    return keys


def _not_a_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)


def _unknown(key_id: str) -> UnknownKeyError:
    return UnknownKeyError(
        f"The server must have the evaluation keys {key_id}. It has not, or no longer. Upload "
        "them again."
    )
