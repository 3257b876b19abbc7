"""``cipherlearn keygen``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cipherlearn.cli._arguments import add_command, add_passphrase, passphrase

__all__ = ["add_keygen"]


def add_keygen(commands: Any) -> None:
    """Add the command to its parser."""
    command = add_command(
        commands,
        "keygen",
        _keygen,
        "Make a client's keys.",
        "The file holds the secret key: only its owner may read it, and it must stay with the "
        "client. Whoever loses it cannot read what was encrypted with it.",
    )
    command.add_argument("client_zip", type=Path, help="the model's client.zip")
    command.add_argument("keys", type=Path, help="file to write; must not exist")
    add_passphrase(command)
    command.add_argument(
        "--evaluation-keys",
        type=Path,
        help="also write the evaluation keys, which a server needs, to this file",
    )


def _keygen(options: argparse.Namespace) -> None:
    from cipherlearn.deployment import FHEClient

    client = FHEClient(options.client_zip)
    for path in (options.keys, options.evaluation_keys):
        if path is not None and path.exists():
            raise FileExistsError(
                f"{path} exists, and may hold somebody's keys. Name another file."
            )
    secret = passphrase(options)
    client.generate_keys(verbose=True)
    client.save_keys(options.keys, secret)
    print(f"{options.keys}  secret keys, id {client.key_id}")
    if options.evaluation_keys is not None:
        with options.evaluation_keys.open("xb") as file:
            file.write(client.evaluation_keys())
        print(f"{options.evaluation_keys}  evaluation keys for the server")
