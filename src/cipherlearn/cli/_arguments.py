"""Arguments that several commands take."""

from __future__ import annotations

import argparse
import getpass
import os
from pathlib import Path
from typing import Any

from cipherlearn._checks import read_tokens

__all__ = ["add_command", "add_passphrase", "add_trusted", "passphrase", "token"]


def add_command(commands: Any, name: str, run: Any, summary: str, detail: str) -> Any:
    """Add a command to the parser, and return its parser."""
    command = commands.add_parser(name, help=summary, description=f"{summary} {detail}")
    command.set_defaults(run=run)
    return command


def add_trusted(command: Any, where: str) -> None:
    """Add the argument ``--trusted``."""
    command.add_argument(
        "--trusted",
        nargs="+",
        default=[],
        metavar="TYPE",
        help=f"types and functions in {where} to trust besides scikit-learn's that are known to be "
        "safe",
    )


def add_passphrase(command: Any) -> None:
    """Add the two ways to give a passphrase."""
    group = command.add_mutually_exclusive_group()
    group.add_argument("--passphrase-file", type=Path, help="file of the keys' passphrase")
    group.add_argument("--ask-passphrase", action="store_true", help="ask for the passphrase")


def passphrase(options: argparse.Namespace) -> str | None:
    """Return the passphrase of the keys, or ``None``."""
    if options.ask_passphrase:
        secret = getpass.getpass("Passphrase of the keys: ")
        is_new = options.keys is None or not options.keys.exists()
        if is_new and getpass.getpass("The same again: ") != secret:
            raise ValueError("The passphrase must be given twice alike. It was not.")
        return secret
    if options.passphrase_file is not None:
        return options.passphrase_file.read_text().rstrip("\n")
    return None


def token(options: argparse.Namespace) -> str | None:
    """Return the bearer token to send: the first of ``--token-file``, the environment's, or None.

    The file may hold several, as that of a service does while its tokens are being replaced.
    """
    if options.token_file is not None:
        return read_tokens(options.token_file)[0]
    # An empty variable is passed on and refused later, since it was probably set by mistake.
    return os.environ.get("CIPHERLEARN_TOKEN")
