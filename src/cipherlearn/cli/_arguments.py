"""Arguments that several commands take."""

from __future__ import annotations

import argparse
import getpass
import os
from pathlib import Path
from typing import Any

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
        help=f"types in {where} to trust besides those of scikit-learn's transformers",
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
    """Return the service's bearer token, or ``None``."""
    if options.token_file is not None:
        # A text that is none would be named in an error.
        return options.token_file.read_bytes().decode("latin-1").strip()
    # An empty token is refused, instead of standing for none.
    return os.environ.get("CIPHERLEARN_TOKEN")
