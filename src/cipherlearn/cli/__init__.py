"""The command line."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from cipherlearn._exceptions import CipherlearnError, UntrustedTypesError, printable
from cipherlearn._version import __version__
from cipherlearn.cli._export import add_export
from cipherlearn.cli._inspect import add_inspect
from cipherlearn.cli._keygen import add_keygen
from cipherlearn.cli._predict import add_predict
from cipherlearn.cli._serve import add_serve

__all__ = ["main"]

_DESCRIPTION = """\
Deploy neural networks that predict on encrypted rows.

A model becomes two files: client.zip, for whoever has rows to predict, and server.zip, for whoever
computes. Keys are made by the client and stay there.

  cipherlearn export model.joblib artefacts/        # whoever trained
  cipherlearn serve artefacts/server.zip            # the server
  cipherlearn keygen artefacts/client.zip my.keys   # the client, once
  cipherlearn predict rows.csv predictions.csv --url http://localhost:8000 --keys my.keys
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command, and exit with status 1 and a reason if it fails."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except UntrustedTypesError as error:
        sys.exit(_line(error.asking_for(f"--trusted {shlex.join(error.types)}")))
    except OSError as error:
        named = error.filename is not None and error.strerror
        sys.exit(_line(f"{error.strerror}: {error.filename}" if named else str(error)))
    except (CipherlearnError, ValueError, ImportError, TypeError) as error:
        sys.exit(_line(str(error)))
    except KeyboardInterrupt:
        sys.exit(130)


def _line(reason: str) -> str:
    return f"cipherlearn: error: {' '.join(printable(reason).split())}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cipherlearn",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (add_export, add_serve, add_keygen, add_predict, add_inspect):
        add(commands)
    return parser
