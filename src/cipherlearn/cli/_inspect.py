"""``cipherlearn inspect``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from cipherlearn._exceptions import printable
from cipherlearn._guarded_zip import read_file, read_members
from cipherlearn.cli._arguments import add_command

__all__ = ["add_inspect"]


def add_inspect(commands: Any) -> None:
    """Add the command to its parser."""
    command = add_command(
        commands,
        "inspect",
        _inspect,
        "Show what an artefact holds, as JSON.",
        "Its checksums are verified, and nothing in it is executed.",
    )
    command.add_argument("artefact", type=Path, help="a client.zip or server.zip")


def _inspect(options: argparse.Namespace) -> None:
    from cipherlearn.deployment._served import ServedModel
    from cipherlearn.deployment.artefacts._archive import Archive, refusing_damage
    from cipherlearn.deployment.artefacts._contents import ClientModel

    content = read_file(options.artefact)
    with refusing_damage(str(options.artefact)):
        is_server = "program.zip" in read_members(content)
    if is_server:
        shown = {"artefact": "server", **ServedModel(options.artefact).description}
    else:
        archive = Archive.from_bytes(content, "client")
        model = ClientModel.from_archive(archive)
        shown = {"artefact": "client", "model_id": archive.id, **model.description}
        shown["keyset_id"] = model.keyset_id.hex()
        shown["has_preprocessing"] = model.preprocessing is not None
        del shown["frames"]
    print(printable(json.dumps(shown, indent=2, ensure_ascii=False)))
