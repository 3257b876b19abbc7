"""Checks of arguments that several files share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["check_execute_in_fhe", "check_int", "check_token", "read_tokens"]


def check_int(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Return ``value`` as an int, or raise ValueError unless it is one in ``[low, high]``."""
    valid = hasattr(value, "__index__") and not isinstance(value, bool) and value >= low
    if not valid or (high is not None and value > high):
        bound = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be an integer {bound}. Got {value!r}.")
    return int(value)


def check_execute_in_fhe(value: Any) -> bool | str:
    """Return how to predict, or raise ValueError."""
    if not (isinstance(value, bool | np.bool_) or value == "simulate"):
        raise ValueError(f'execute_in_fhe must be False, True or "simulate". Got {value!r}.')
    return value if isinstance(value, str) else bool(value)


def check_token(token: str) -> str:
    """Return a bearer token, or raise ValueError, without naming it, if a header cannot hold it."""
    if not token:
        raise ValueError("A token must not be empty. Got an empty one.")
    if not (token.isascii() and token.isprintable()) or token != token.strip():
        raise ValueError(
            "A token must be printable ASCII, without spaces around it. Got one of "
            f"{len(token)} characters that is not. `openssl rand -hex 32` makes one."
        )
    return token


def read_tokens(path: Path) -> list[str]:
    r"""Read a file of bearer tokens, one a line.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of str
        At least one, in the order of the file. Blank lines are left out.

    Raises
    ------
    ValueError
        If the file holds no token, or one that a header cannot hold. No token is named.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from cipherlearn._checks import read_tokens
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = Path(directory, "tokens")
    ...     _ = path.write_text("new\nold\n")
    ...     read_tokens(path)
    ['new', 'old']
    """
    try:
        lines = path.read_text("ascii").splitlines()
    except UnicodeDecodeError:
        # The error would show the bytes that it could not decode.
        raise ValueError(f"Tokens must be printable ASCII. Those in {path} are not.") from None
    tokens = [check_token(line.strip()) for line in lines if line.strip()]
    if not tokens:
        raise ValueError(f"A file of tokens must have one a line. {path} has none.")
    return tokens
