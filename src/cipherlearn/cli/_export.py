"""``cipherlearn export``."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

from cipherlearn.cli._arguments import add_command, add_trusted

__all__ = ["add_export"]


def add_export(commands: Any) -> None:
    """Add the command to its parser."""
    command = add_command(
        commands,
        "export",
        _export,
        "Write client.zip and server.zip of a fitted model.",
        "The model is a NeuralNetClassifier, a NeuralNetRegressor or a Pipeline that ends in one. "
        "It is compiled if it is not yet. Some encrypted rows are predicted as a test.",
    )
    command.add_argument(
        "model",
        type=Path,
        help="file of the model: .skops, or .joblib or .pkl. Loading the latter two executes what "
        "is in them, so trust whoever wrote them",
    )
    command.add_argument("directory", type=Path, help="where to write; made if missing")
    command.add_argument("--batch-size", type=int, help="rows of a ciphertext (default: 1)")
    command.add_argument(
        "--p-error",
        type=float,
        help="error probability of a bootstrap (default: 2**-40). This and --batch-size are for a "
        "model that is not compiled yet",
    )
    add_trusted(command, "the model, or in the steps before it,")


def _export(options: argparse.Namespace) -> None:
    from cipherlearn.deployment import export
    from cipherlearn.deployment._export import check_model

    model = _load_model(options.model, options.trusted)
    # Compiling may take minutes, so first check what export would refuse.
    _, estimator, _ = check_model(model, options.trusted)
    asked = {"p_error": options.p_error, "batch_size": options.batch_size}
    asked = {name: value for name, value in asked.items() if value is not None}
    if not hasattr(estimator, "circuit_"):
        estimator.compile(**asked)
    elif asked:
        raise ValueError(
            f"The model is compiled already, with {estimator.circuit_.options}. Leave out "
            f"{' and '.join(asked)}, or save the model before it is compiled."
        )
    for path in export(model, options.directory, trusted=options.trusted):
        print(f"{path}  {path.stat().st_size} bytes")


def _load_model(path: Path, trusted: list[str]) -> Any:
    if path.suffix == ".skops":
        from cipherlearn.deployment.artefacts._preprocessing import load_skops

        return load_skops(path.read_bytes(), trusted, "The model", path.name)
    import joblib

    try:
        return joblib.load(path)
    except (AttributeError, EOFError, KeyError, IndexError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} must be a model as joblib.dump wrote it, of classes that can be imported "
            f"here. {error!r}."
        ) from error
