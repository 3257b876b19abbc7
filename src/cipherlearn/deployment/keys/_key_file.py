"""Files of secret keys, which only their owner may read, and a passphrase may encrypt."""

from __future__ import annotations

import hashlib
import os
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from cipherlearn._exceptions import ArtefactError
from cipherlearn._guarded_zip import read_file
from cipherlearn.deployment.artefacts._archive import write_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["read_keys", "write_keys"]

_MAGIC = b"CLSK"
_VERSION = 1

# Magic, version, whether encrypted, keyset id, salt, nonce.
_HEADER = struct.Struct("<4sHH32s16s12s")

# SHA-256, or the shorter tag of AES-GCM.
_SEAL_BYTES = 32

# 128 MiB and a fraction of a second for each passphrase that is tried.
_SCRYPT = {"length": 32, "n": 2**17, "r": 8, "p": 1}


def write_keys(
    path: str | os.PathLike[str], keyset_id: bytes, keys: bytes, passphrase: str | None
) -> None:
    """Write keys to a new file that only its owner may read.

    With a passphrase they are sealed by AES-256-GCM, under a key that scrypt (RFC 7914) derives
    from it. Without one, a SHA-256 tells damage.
    """
    path = Path(path)
    salt, nonce = os.urandom(16), os.urandom(12)
    header = _HEADER.pack(_MAGIC, _VERSION, passphrase is not None, keyset_id, salt, nonce)
    if passphrase is None:
        body = hashlib.sha256(header + keys).digest() + keys
    else:
        body = _cipher(passphrase, salt).encrypt(nonce, keys, header)
    try:
        write_file(path, header + body, is_private=True, replaces=False)
    except FileExistsError as error:
        raise FileExistsError(
            f"{path} exists, and may be the only key to what was encrypted with it. Name another "
            "file, or move that one away."
        ) from error


def read_keys(
    path: str | os.PathLike[str], keyset_id: bytes, passphrase: str | None, most: int
) -> bytes:
    """Read keys for a keyset, of at most so many bytes, or raise ArtefactError."""
    most += _HEADER.size + _SEAL_BYTES
    path = Path(path)
    # A pipe would be waited for.
    if path.exists() and not path.is_file():
        raise ArtefactError(f"Keys must be in a regular file. {path} is none. Name another.")
    data = read_file(path, most)
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        raise ArtefactError(f"{path} must be a key file that FHEClient.save_keys wrote. It is not.")
    _, version, encrypted, found, salt, nonce = _HEADER.unpack_from(data)
    if version != _VERSION:
        raise ArtefactError(
            f"This cipherlearn reads version {_VERSION} of key files. {path} has version {version}."
        )
    if found != keyset_id:
        raise ArtefactError(
            f"The keys in {path} are for other cryptographic parameters than this model's. Use the "
            "client.zip that they were made for, or generate new keys."
        )
    if len(data) > most:
        raise ArtefactError(f"The key file {path} is damaged: it is longer than this model's keys.")
    if path.stat().st_mode & 0o077:
        warnings.warn(
            f"Others than the owner may read the secret keys in {path}. Run: chmod 600 {path}",
            stacklevel=3,
        )
    header, body = data[: _HEADER.size], data[_HEADER.size :]
    if not encrypted and passphrase is not None:
        raise ArtefactError(
            f"A key file that is read with a passphrase must be encrypted. {path} is not: it was "
            "saved without one, or replaced. If you trust it, give no passphrase."
        )
    if encrypted:
        return _unseal(path, header, body, salt, nonce, passphrase)
    digest, keys = body[:32], body[32:]
    if hashlib.sha256(header + keys).digest() != digest:
        raise ArtefactError(f"The key file {path} is damaged: its checksum does not match.")
    return keys


def _unseal(
    path: Path, header: bytes, body: bytes, salt: bytes, nonce: bytes, passphrase: str | None
) -> bytes:
    from cryptography.exceptions import InvalidTag

    if passphrase is None:
        raise ArtefactError(f"The key file {path} is encrypted. Give its passphrase.")
    try:
        return _cipher(passphrase, salt).decrypt(nonce, body, header)
    except InvalidTag as error:
        raise ArtefactError(
            f"The key file {path} cannot be decrypted: the passphrase is wrong, or the file is "
            "damaged."
        ) from error


def _cipher(passphrase: str, salt: bytes) -> AESGCM:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
    except ImportError as error:
        raise ImportError(
            "Key files with a passphrase need cryptography: pip install 'cipherlearn[client]'"
        ) from error
    if not passphrase:
        raise ValueError("A passphrase must not be empty. Give None to store keys without one.")
    return AESGCM(Scrypt(salt=salt, **_SCRYPT).derive(passphrase.encode()))
