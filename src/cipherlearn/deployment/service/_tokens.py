"""Tokens of which a client must send one. Only their digests are kept."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path

from cipherlearn._checks import check_token, read_tokens
from cipherlearn.deployment.service._logs import LOGGER

__all__ = ["Tokens"]


class Tokens:
    """Tokens that are given, or lines of a file that is read again whenever it changes.

    Parameters
    ----------
    tokens : iterable of str, default=()
    file : Path or None, default=None
        File of one token a line. When it cannot be read any more, or holds no valid tokens, the
        last ones stay valid, and an error is logged.

    Raises
    ------
    ValueError
        If a token is empty or cannot be sent, or the file holds none.
    OSError
        If the file cannot be read.
    """

    def __init__(self, tokens: Iterable[str] = (), file: Path | None = None) -> None:
        self._given = _digests(check_token(token) for token in tokens)
        self._file = file
        self._state: object = None
        self._read: list[bytes] = []
        if file is not None:
            self._state = _state_of(file)
            self._read = _digests(read_tokens(file))

    def are_needed(self) -> bool:
        """Return whether a client must send one."""
        return self._file is not None or bool(self._given)

    def accept(self, token: str) -> bool:
        """Return whether a token is one of them, in a time that does not depend on which."""
        self._refresh()
        digest = _digest(token)
        found = [hmac.compare_digest(digest, each) for each in (*self._given, *self._read)]
        return any(found)

    def _refresh(self) -> None:
        if self._file is None:
            return
        try:
            state: object = _state_of(self._file)
        except OSError as error:
            state = error.errno
        if state == self._state:
            return
        self._state = state
        try:
            self._read = _digests(read_tokens(self._file))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            LOGGER.error(
                f"the tokens stay as they were: {self._file} is no file of tokens. {reason}"
            )
        else:
            LOGGER.info(f"{len(self._read)} tokens were read from {self._file}")


def _state_of(file: Path) -> tuple[int, ...]:
    status = file.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _digests(tokens: Iterable[str]) -> list[bytes]:
    return [_digest(token) for token in tokens]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
