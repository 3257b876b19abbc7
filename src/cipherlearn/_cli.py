"""The command line."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cipherlearn._exceptions import ArtefactError, CipherlearnError
from cipherlearn._version import __version__

if TYPE_CHECKING:
    import pandas as pd

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
    except (CipherlearnError, ValueError, OSError, ImportError, TypeError) as error:
        sys.exit(f"cipherlearn: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cipherlearn",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (_add_export, _add_serve, _add_keygen, _add_predict, _add_inspect):
        add(commands)
    return parser


def _add_command(commands: Any, name: str, run: Any, summary: str, detail: str) -> Any:
    command = commands.add_parser(name, help=summary, description=f"{summary} {detail}")
    command.set_defaults(run=run)
    return command


# ---------------------------------------------------------------------- export


def _add_export(commands: Any) -> None:
    command = _add_command(
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
    command.add_argument(
        "--trusted",
        nargs="+",
        default=[],
        metavar="TYPE",
        help="types in the model, or in the steps before it, to trust besides scikit-learn's",
    )


def _export(options: argparse.Namespace) -> None:
    from cipherlearn.deployment import export

    model = _load_model(options.model, options.trusted)
    steps = getattr(model, "steps", None)
    estimator = steps[-1][1] if steps else model
    asked = {"p_error": options.p_error, "batch_size": options.batch_size}
    asked = {name: value for name, value in asked.items() if value is not None}
    if hasattr(estimator, "circuit_") and asked:
        raise ValueError(
            f"The model is compiled already, with {estimator.circuit_.options}. Leave out "
            f"{' and '.join(asked)}, or save the model before it is compiled."
        )
    if hasattr(estimator, "program_") and not hasattr(estimator, "circuit_"):
        estimator.compile(**asked)
    for path in export(model, options.directory, trusted=options.trusted):
        print(f"{path}  {path.stat().st_size} bytes")


def _load_model(path: Path, trusted: list[str]) -> Any:
    if path.suffix == ".skops":
        import skops.io

        return skops.io.load(path, trusted=trusted)
    import joblib

    return joblib.load(path)


# ---------------------------------------------------------------------- serve


def _add_serve(commands: Any) -> None:
    command = _add_command(
        commands,
        "serve",
        _serve,
        "Predict on encrypted rows over HTTP.",
        "The interface is documented at /docs. Logs are JSON lines without payloads, metrics for "
        "Prometheus are at /metrics. Needs: pip install 'cipherlearn[server]'.",
    )
    command.add_argument("server_zip", type=Path, help="the model's server.zip")
    command.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1)")
    command.add_argument("--port", type=int, default=8000, help="port (default: 8000)")
    command.add_argument(
        "--data-dir",
        type=Path,
        default=Path("cipherlearn-keys"),
        help="where clients' evaluation keys are kept (default: cipherlearn-keys)",
    )
    command.add_argument(
        "--token-file",
        type=Path,
        help="file of the bearer token that clients must send. The environment variable "
        "CIPHERLEARN_TOKEN is used otherwise; with neither, anybody may ask",
    )
    command.add_argument("--tls-certificate", type=Path, help="PEM file, to serve HTTPS")
    command.add_argument("--tls-key", type=Path, help="PEM file of its private key")
    limits = command.add_argument_group("limits")
    for flag, default, text in (
        ("workers", 1, "processes that evaluate; more pay for one-layer models only"),
        ("max-loaded-keys", 8, "clients whose keys a worker keeps in memory"),
        ("max-key-store-bytes", 10_000_000_000, "disk space of keys; the least used go first"),
        ("max-body-bytes", 16_000_000, "largest body of a prediction"),
        ("max-pending", 32, "predictions that may wait or run; further ones get status 503"),
        ("max-uploads", 16, "keys that may arrive at a time; further ones get status 503"),
        ("evaluation-timeout", 120, "seconds for one batch"),
        ("body-timeout", 300, "seconds in which a body must arrive"),
        ("shutdown-timeout", 30, "seconds for requests in progress when the service is ended"),
    ):
        limits.add_argument(
            f"--{flag}", type=int, default=default, metavar="N", help=f"{text} (default: {default})"
        )
    command.add_argument("--log-level", default="info", choices=["debug", "info", "warning"])


def _serve(options: argparse.Namespace) -> None:
    try:
        import uvicorn

        from cipherlearn.deployment.service import ServiceSettings, create_app
        from cipherlearn.deployment.service._observability import configure_logging
    except ImportError as error:
        raise ImportError(
            f"The service needs further packages ({error}): pip install 'cipherlearn[server]'"
        ) from error
    if (options.tls_certificate is None) != (options.tls_key is None):
        raise ValueError("HTTPS needs both --tls-certificate and --tls-key. Got one of them.")
    configure_logging(options.log_level)
    settings = ServiceSettings(
        server_zip=options.server_zip,
        data_dir=options.data_dir,
        token=_token(options),
        n_workers=options.workers,
        max_loaded_keys=options.max_loaded_keys,
        max_key_store_bytes=options.max_key_store_bytes,
        max_body_bytes=options.max_body_bytes,
        max_pending=options.max_pending,
        max_uploads=options.max_uploads,
        evaluation_timeout=options.evaluation_timeout,
        body_timeout=options.body_timeout,
    )
    uvicorn.run(
        create_app(settings),
        host=options.host,
        port=options.port,
        ssl_certfile=options.tls_certificate,
        ssl_keyfile=options.tls_key,
        limit_concurrency=10 * (options.max_pending + options.max_uploads),
        timeout_graceful_shutdown=options.shutdown_timeout,
        access_log=False,  # the service writes its own
        log_config=None,
    )


def _token(options: argparse.Namespace) -> str | None:
    if options.token_file is not None:
        return options.token_file.read_text().strip()
    # An empty one is refused, and does not let everybody in.
    return os.environ.get("CIPHERLEARN_TOKEN")


# ---------------------------------------------------------------------- keygen


def _add_keygen(commands: Any) -> None:
    command = _add_command(
        commands,
        "keygen",
        _keygen,
        "Make a client's keys.",
        "The file holds the secret key: only its owner may read it, and it must stay with the "
        "client. Whoever loses it cannot read what was encrypted with it.",
    )
    command.add_argument("client_zip", type=Path, help="the model's client.zip")
    command.add_argument("keys", type=Path, help="file to write; must not exist")
    _add_passphrase(command)
    command.add_argument(
        "--evaluation-keys",
        type=Path,
        help="also write the evaluation keys, which a server needs, to this file",
    )


def _add_passphrase(command: Any) -> None:
    group = command.add_mutually_exclusive_group()
    group.add_argument("--passphrase-file", type=Path, help="file of the keys' passphrase")
    group.add_argument("--ask-passphrase", action="store_true", help="ask for the passphrase")


def _passphrase(options: argparse.Namespace) -> str | None:
    if options.ask_passphrase:
        passphrase = getpass.getpass("Passphrase of the keys: ")
        is_new = options.keys is None or not options.keys.exists()
        if is_new and getpass.getpass("The same again: ") != passphrase:
            raise ValueError("The passphrase must be given twice alike. It was not.")
        return passphrase
    if options.passphrase_file is not None:
        return options.passphrase_file.read_text().rstrip("\n")
    return None


def _keygen(options: argparse.Namespace) -> None:
    from cipherlearn.deployment import FHEClient

    client = FHEClient(options.client_zip)
    for path in (options.keys, options.evaluation_keys):
        if path is not None and path.exists():
            raise FileExistsError(
                f"{path} exists, and may hold somebody's keys. Name another file."
            )
    passphrase = _passphrase(options)
    client.generate_keys(verbose=True)
    client.save_keys(options.keys, passphrase)
    print(f"{options.keys}  secret keys, id {client.key_id}")
    if options.evaluation_keys is not None:
        with options.evaluation_keys.open("xb") as file:
            file.write(client.evaluation_keys())
        print(f"{options.evaluation_keys}  evaluation keys for the server")


# ---------------------------------------------------------------------- predict


def _add_predict(commands: Any) -> None:
    command = _add_command(
        commands,
        "predict",
        _predict,
        "Predict the rows of a table, encrypted.",
        "Columns are chosen by the names that the model was trained with, if it was trained with "
        "names; otherwise the table must hold its features and nothing else. "
        "Needs: pip install 'cipherlearn[client]'.",
    )
    command.add_argument("rows", type=Path, help=".csv or .parquet file of the rows")
    command.add_argument("predictions", type=Path, help=".csv or .parquet file to write")
    where = command.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", help="a running service")
    where.add_argument(
        "--server", type=Path, metavar="SERVER_ZIP", help="predict in this process, as a test"
    )
    command.add_argument(
        "--keys",
        type=Path,
        help="file of the secret keys; made if missing (default: keys for this call)",
    )
    _add_passphrase(command)
    command.add_argument("--token-file", type=Path, help="file of the service's bearer token")
    command.add_argument(
        "--ca-file",
        type=Path,
        help="PEM file of who vouches for an HTTPS service, if not the usual",
    )
    command.add_argument("--model-id", help="refuse a service with another model")
    command.add_argument("--proba", action="store_true", help="also write probabilities")
    command.add_argument(
        "--trusted",
        nargs="+",
        default=[],
        metavar="TYPE",
        help="types in the model's preprocessing to trust besides scikit-learn's",
    )
    command.add_argument("--quiet", action="store_true", help="show no progress")


def _predict(options: argparse.Namespace) -> None:
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError("Tables need pandas: pip install 'cipherlearn[client]'") from error
    from cipherlearn.deployment import FHEClient, FHEServer, RemoteModel

    table = _read_table(options.rows)
    _check_target(options.predictions)
    if options.url is not None:
        remote = RemoteModel(
            options.url,
            options.keys,
            passphrase=_passphrase(options),
            model_id=options.model_id,
            token=_token(options),
            trusted=options.trusted,
            verify=True if options.ca_file is None else options.ca_file,
            verbose=not options.quiet,
        )
        client, transport = remote.client_, remote.evaluate
    else:
        server = FHEServer(options.server)
        client = FHEClient.from_bytes(server.client_zip, options.trusted)
        client.open_keys(options.keys, _passphrase(options), not options.quiet)
        server.add_keys(client.evaluation_keys())
        transport = server.evaluate
    if options.proba and client.description["probabilities"] is None:
        raise ValueError("--proba needs a classifier whose outputs are probabilities. It has none.")
    outputs = client.outputs(_features(table, client.description), transport, not options.quiet)
    if client.description["estimator"] == "classifier":
        result = pd.DataFrame({"prediction": client.labels(outputs)}, index=table.index)
        if options.proba:
            for label, column in zip(client.classes_, client.probabilities(outputs).T, strict=True):
                result[f"probability_{label}"] = column
    else:
        targets = client.targets(outputs).reshape(len(table), -1)
        names = ["prediction"] if targets.shape[1] == 1 else None
        result = pd.DataFrame(targets, index=table.index, columns=names)
        result.columns = [name if names else f"prediction_{name}" for name in result.columns]
    _write_table(result, options.predictions)
    print(f"{options.predictions}  {len(result)} predictions")


def _check_suffix(path: Path) -> None:
    if path.suffix not in (".csv", ".parquet"):
        raise ValueError(f"A table must be a .csv or .parquet file. Got {path}.")


def _check_target(path: Path) -> None:
    """Find out before rows are encrypted, which may take hours."""
    _check_suffix(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The directory of the predictions must exist. Got {path.parent}.")
    if path.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise ImportError("Parquet files need pyarrow: pip install 'cipherlearn[client]'")


def _read_table(path: Path) -> pd.DataFrame:
    import pandas as pd

    _check_suffix(path)
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)


def _write_table(table: pd.DataFrame, path: Path) -> None:
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False)


def _features(table: pd.DataFrame, description: dict[str, Any]) -> Any:
    names = description["feature_names"]
    if names is None:
        if table.shape[1] != description["n_features"]:
            raise ValueError(
                f"The model was trained on {description['n_features']} features without names, so "
                f"the table must have as many columns. Got {table.shape[1]}: {list(table.columns)}."
            )
        return table.to_numpy()
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise ValueError(
            f"The table must have the model's features as columns. It lacks {missing}."
        )
    return table[names]


# ---------------------------------------------------------------------- inspect


def _add_inspect(commands: Any) -> None:
    command = _add_command(
        commands,
        "inspect",
        _inspect,
        "Show what an artefact holds, as JSON.",
        "Its checksums are verified, and nothing in it is executed.",
    )
    command.add_argument("artefact", type=Path, help="a client.zip or server.zip")


def _inspect(options: argparse.Namespace) -> None:
    from cipherlearn.deployment._archive import Archive
    from cipherlearn.deployment._model import ClientModel
    from cipherlearn.deployment._served import ServedModel

    try:
        with zipfile.ZipFile(options.artefact) as members:
            is_server = "circuit.mlir" in members.namelist()
    except zipfile.BadZipFile as error:
        raise ArtefactError(f"{options.artefact} must be a zip archive. {error}.") from error
    if is_server:
        shown = {"artefact": "server", **ServedModel(options.artefact).description}
    else:
        archive = Archive.read(options.artefact, "client")
        model = ClientModel.from_archive(archive)
        shown = {"artefact": "client", "model_id": archive.id, **model.description}
        shown["keyset_id"] = model.keyset_id.hex()
        shown["has_preprocessing"] = model.preprocessing is not None
        del shown["frames"]
    print(json.dumps(shown, indent=2, ensure_ascii=False))
