"""Zip archives whose manifest names every member and its SHA-256. Reading executes nothing."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import secrets
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cipherlearn import _guarded_zip
from cipherlearn._exceptions import ArtefactError
from cipherlearn._guarded_zip import array_from, json_from, read_file, read_members

__all__ = ["Archive", "json_bytes", "refusing_damage", "sync_directory", "write_file"]

MANIFEST = "manifest.json"
VERSION = 3

# Zip files store a time. A fixed one makes equal artefacts equal files.
_TIME = (1980, 1, 1, 0, 0, 0)


def refusing_damage(name: str) -> contextlib.AbstractContextManager[None]:
    """Turn all errors of damaged content into ArtefactError."""
    return _guarded_zip.refusing_damage(
        ArtefactError,
        f"{name} must be whole, as cipherlearn.deployment.export wrote it. It is not:",
        "Get it again.",
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
        """Format and version of the artefact, and the SHA-256 of each member."""
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
        value = json_from(self.members[name])
        if not isinstance(value, dict):
            raise ArtefactError(f"{name} in an artefact must be a JSON object. Got {value!r:.100}.")
        return value

    def array(self, name: str, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
        """Read a member that is a NumPy array, of this shape if one is given."""
        array = array_from(self.members[name])
        if shape not in (None, array.shape):
            raise ArtefactError(f"{name} must have the shape {shape}. Got {array.shape}.")
        return array

    def to_bytes(self) -> bytes:
        """Serialize to the content of a zip file."""
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
        with refusing_damage(f"{kind}.zip"):
            members = read_members(content)
            manifest = members.pop(MANIFEST)
            _check_manifest(json_from(manifest), kind)
            read = cls(kind, members)
            if manifest != read.manifest:
                raise ArtefactError(
                    "The checksums of an artefact must match its content. These do not: the "
                    "file is damaged or was changed. Get it again."
                )
        return read

    @classmethod
    def read(cls, path: str | os.PathLike[str], kind: str) -> Archive:
        """Read a file of this kind, or raise ArtefactError or FileNotFoundError."""
        return cls.from_bytes(read_file(path), kind)


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
            f"{manifest.get('version')!r:.100}. Export the model again, with this version: "
            "cipherlearn.deployment.export(model, directory), or `cipherlearn export`."
        )


def json_bytes(value: Any) -> bytes:
    """Serialize to JSON in the form that checksums are computed of."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).encode()


def write_file(
    path: Path, content: bytes, *, is_private: bool = False, replaces: bool = True
) -> None:
    """Write a file whole or not at all, even if the machine stops midway.

    Parameters
    ----------
    path : Path
    content : bytes
    is_private : bool, default=False
        Whether only the owner may read it. The umask decides otherwise.
    replaces : bool, default=True
        Whether to replace an existing file. FileExistsError is raised otherwise.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    opener = partial(os.open, mode=0o600 if is_private else 0o666)
    try:
        with open(temporary, "xb", opener=opener) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replaces:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Wait until the names in a directory are on disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
