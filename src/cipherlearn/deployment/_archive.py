"""Zip archives whose manifest names every member and its SHA-256. Reading executes nothing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn._exceptions import ArtefactError

__all__ = ["Archive", "array_bytes", "json_bytes", "replace_file"]

MANIFEST = "manifest.json"
VERSION = 1

# An artefact is a network and its parameters, a few megabytes at most. A larger one is a mistake or
# an attack on the memory of whoever unpacks it.
MAX_BYTES = 1 << 30

# Zip files store a time. A fixed one makes equal artefacts equal files.
_TIME = (1980, 1, 1, 0, 0, 0)

_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)


class Archive:
    """The members of an artefact, by name.

    Parameters
    ----------
    kind : {"client", "server"}
    members : dict of str to bytes
    """

    def __init__(self, kind: str, members: dict[str, bytes]) -> None:
        self.kind = kind
        self.members = members

    @property
    def manifest(self) -> bytes:
        """What the artefact is, and the SHA-256 of each member."""
        digests = {
            name: hashlib.sha256(self.members[name]).hexdigest() for name in sorted(self.members)
        }
        return json_bytes({"format": _format(self.kind), "version": VERSION, "sha256": digests})

    @property
    def id(self) -> str:
        """SHA-256 of the manifest, and so of everything in the artefact."""
        return hashlib.sha256(self.manifest).hexdigest()

    def json(self, name: str) -> dict[str, Any]:
        """Read a member that is a JSON object."""
        value = json.loads(self.members[name])
        if not isinstance(value, dict):
            raise ArtefactError(f"{name} in an artefact must be a JSON object. Got {value!r:.100}.")
        return value

    def array(self, name: str) -> NDArray:
        """Read a member that is a NumPy array."""
        return np.lib.format.read_array(io.BytesIO(self.members[name]), allow_pickle=False)

    def to_bytes(self) -> bytes:
        """Give the archive as a file's content."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in [(MANIFEST, self.manifest), *sorted(self.members.items())]:
                entry = zipfile.ZipInfo(name, _TIME)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, content)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, kind: str) -> Archive:
        """Read an archive of this kind, or raise ArtefactError."""
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
                if size > MAX_BYTES:
                    raise ArtefactError(
                        f"An artefact holds at most {MAX_BYTES} bytes. This one claims {size}."
                    )
                _check_manifest(json.loads(archive.read(MANIFEST)), kind)
                names = [name for name in archive.namelist() if name != MANIFEST]
                read = cls(kind, {name: archive.read(name) for name in names})
                if archive.read(MANIFEST) != read.manifest:
                    raise ArtefactError(
                        "The checksums of an artefact must match its content. These do not: the "
                        "file is damaged or was changed. Get it again."
                    )
        except ArtefactError:
            raise
        except _DAMAGE as error:
            raise ArtefactError(
                f"{kind}.zip must be an undamaged {_format(kind)} archive. {error}. "
                "Get it again, or write it with cipherlearn.deployment.export."
            ) from error
        return read

    @classmethod
    def read(cls, path: str | os.PathLike[str], kind: str) -> Archive:
        """Read a file of this kind, or raise ArtefactError or FileNotFoundError."""
        return cls.from_bytes(Path(path).read_bytes(), kind)


def _format(kind: str) -> str:
    return f"cipherlearn-{kind}"


def _check_manifest(manifest: Any, kind: str) -> None:
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != _format(kind):
        raise ArtefactError(
            f"{kind}.zip must name its format as {_format(kind)!r}. Got {found!r:.100}. "
            "A client reads client.zip, a server server.zip."
        )
    if manifest.get("version") != VERSION:
        raise ArtefactError(
            f"This cipherlearn reads version {VERSION} of {_format(kind)}. Got version "
            f"{manifest.get('version')!r:.100}. Use the cipherlearn that wrote it."
        )


def json_bytes(value: Any) -> bytes:
    """Write JSON in the one form that checksums are made of."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).encode()


def array_bytes(array: NDArray) -> bytes:
    """Write an array in NumPy's format."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=False)
    return buffer.getvalue()


def replace_file(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file whole or not at all, even if the machine stops midway."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
