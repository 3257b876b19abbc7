"""``cipherlearn predict``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cipherlearn._exceptions import CipherlearnError
from cipherlearn.cli._arguments import add_command, add_passphrase, add_trusted, passphrase, token
from cipherlearn.cli._tables import Table, check_target, read_table, write_table

if TYPE_CHECKING:
    import pandas as pd

    from cipherlearn.deployment import FHEClient

__all__ = ["add_predict"]

# Values of a column that are tried in place of an invalid one.
_MAX_CANDIDATES = 20


def add_predict(commands: Any) -> None:
    """Add the command to its parser."""
    command = add_command(
        commands,
        "predict",
        _predict,
        "Predict the rows of a table, encrypted.",
        "Columns are chosen by the names that the model was trained with, if it was trained with "
        "names; otherwise the table must hold its features and the columns of --id, and nothing "
        "else. Texts of CSV files such as NA and null are read as missing values, and named. A "
        "spreadsheet may take labels that start with = for formulas. "
        "Needs: pip install 'cipherlearn[client]'.",
    )
    command.add_argument(
        "rows", help=".csv or .parquet file of the rows, or - for CSV on the standard input"
    )
    command.add_argument(
        "predictions", help=".csv or .parquet file to write, or - for CSV on the standard output"
    )
    where = command.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", help="a running service")
    where.add_argument(
        "--server", type=Path, metavar="SERVER_ZIP", help="predict in this process, as a test"
    )
    command.add_argument(
        "--id",
        action="append",
        default=[],
        metavar="COLUMN",
        help="column of the table to write beside the predictions, as it is; may be repeated",
    )
    command.add_argument("--proba", action="store_true", help="also write probabilities")
    command.add_argument(
        "--separator",
        type=_separator,
        metavar="CHARACTER",
        help="what separates the values of CSV files, read and written; or the word tab (default: "
        "the one of , ; | and tab that the header of the rows has most of)",
    )
    command.add_argument(
        "--keys",
        type=Path,
        help="file of the secret keys; made if missing (default: keys for this call)",
    )
    add_passphrase(command)
    command.add_argument(
        "--token-file",
        type=Path,
        help="file of the service's bearer tokens, one a line, of which the first is sent",
    )
    command.add_argument(
        "--ca-file",
        type=Path,
        help="PEM file of who vouches for an HTTPS service, if not the usual",
    )
    command.add_argument("--model-id", help="refuse a service with another model")
    add_trusted(command, "the model's preprocessing")
    command.add_argument("--quiet", action="store_true", help="show no progress")


def _separator(text: str) -> str:
    if text == "tab":
        return "\t"
    if len(text) != 1 or text in '"\r\n':
        raise argparse.ArgumentTypeError(f"must be one character, or the word tab. Got {text!r}")
    return text


def _predict(options: argparse.Namespace) -> None:
    try:
        import pandas  # noqa: F401
    except ImportError as error:
        raise ImportError("Tables need pandas: pip install 'cipherlearn[client]'") from error

    table = read_table(options.rows, options.separator, options.id)
    check_target(options.predictions)
    client, transport = _connect(options)
    if options.proba and client.description["probabilities"] is None:
        raise ValueError("--proba needs a classifier whose outputs are probabilities. It has none.")
    names = _columns(client, options.proba)
    if clash := [name for name in table.ids if name in names]:
        raise ValueError(f"--id names columns {clash}, as predictions are named. Rename them.")
    rows = _features(table.rows, table, client.description)
    rows = _typed_as_trained(rows, _features(table.texts, table, client.description), client)
    _tell_missing(table, rows.columns)
    try:
        outputs = client.outputs(_values(rows, client), transport, not options.quiet)
    except CipherlearnError:
        raise
    except (TypeError, ValueError) as error:
        raise ValueError(_explain(rows, client, error)) from error
    result = _predictions(outputs, client, names)
    for position, (name, values) in enumerate(table.ids.items()):
        result.insert(position, name, values)
    write_table(result, options.predictions, table.separator)
    unused = [name for name in table.rows.columns if name not in {*rows.columns, *table.ids}]
    note = f". The model does not use the columns {unused}" if unused else ""
    # The standard output may be the table.
    print(f"{options.predictions}  {len(result)} predictions{note}", file=sys.stderr)


def _connect(options: argparse.Namespace) -> tuple[FHEClient, Callable]:
    """Return a client with keys, and its transport."""
    from cipherlearn.deployment import FHEClient, FHEServer, RemoteModel

    if options.url is not None:
        remote = RemoteModel(
            options.url,
            options.keys,
            passphrase=passphrase(options),
            model_id=options.model_id,
            token=token(options),
            trusted=options.trusted,
            verify=True if options.ca_file is None else options.ca_file,
            verbose=not options.quiet,
        )
        return remote.client_, remote.evaluate
    server = FHEServer(options.server)
    client = FHEClient.from_bytes(server.client_zip, options.trusted)
    client.open_keys(options.keys, passphrase(options), not options.quiet)
    server.add_keys(client.evaluation_keys())
    return client, server.evaluate


def _features(rows: pd.DataFrame, table: Table, description: dict[str, Any]) -> pd.DataFrame:
    """Select the columns of the model."""
    names = description["feature_names"]
    if names is None:
        rows = rows.drop(columns=[name for name in table.ids if name in rows.columns])
        if rows.shape[1] != description["n_features"]:
            raise ValueError(
                f"The model was trained on {description['n_features']} features without names, so "
                f"the table must have as many columns besides those of --id. Got {rows.shape[1]}: "
                f"{list(rows.columns)}."
            )
        return rows
    missing = [name for name in names if name not in rows.columns]
    if missing:
        raise ValueError(
            f"The table must have the model's features as columns. It lacks {missing}, and has "
            f"{list(rows.columns)}."
        )
    return rows[names]


def _tell_missing(table: Table, columns: Iterable[str]) -> None:
    """Say which texts were read as missing values, as they could be categories."""
    found = [
        f"{', '.join(map(repr, table.missing[name]))} in column {name!r}"
        for name in columns
        if name in table.missing
    ]
    if found:
        print(
            f"Read as missing values: {'; '.join(found):.1000}. If they are missing, leave their "
            "fields empty. If they are texts, write the table as .parquet.",
            file=sys.stderr,
        )


def _values(rows: pd.DataFrame, client: FHEClient) -> Any:
    """Return the rows as a table if the model was trained on one, else as an array."""
    return rows if client.description["feature_names"] is not None else rows.to_numpy()


def _columns(client: FHEClient, with_probabilities: bool) -> list[str]:
    """Name the columns of predictions."""
    if client.description["estimator"] == "classifier":
        labels: Any = client.classes_ if with_probabilities else []
        return ["prediction", *(f"probability_{label}" for label in labels)]
    if client.n_outputs == 1:
        return ["prediction"]
    return [f"prediction_{i}" for i in range(client.n_outputs)]


def _predictions(outputs: Any, client: FHEClient, names: list[str]) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    columns = [*np.atleast_2d(client.decode(outputs).T)]
    if len(names) > len(columns):
        columns += [*client.probabilities(outputs).T]
    return pd.DataFrame(dict(zip(names, columns, strict=True)))


def _refusal(part: pd.DataFrame, client: FHEClient) -> Exception | None:
    """Return why the model refuses rows, or ``None`` if it accepts them."""
    try:
        # Rows are checked at once, and encrypted when they are asked for.
        client.encrypt(_values(part, client))
    except CipherlearnError:
        raise
    except (TypeError, ValueError) as reason:
        return reason
    return None


def _typed_as_trained(rows: pd.DataFrame, texts: pd.DataFrame, client: FHEClient) -> pd.DataFrame:
    """Read columns as text if they look like numbers here and were text in training.

    The artefact does not name these columns, so choose those with which the model accepts the rows.
    """
    if _refusal(rows, client) is None:
        return rows
    numbers = [name for name in rows.columns if rows[name].dtype.kind in "iufb"]
    trials = [[name] for name in numbers]
    trials += [[*pair] for pair in combinations(numbers[:_MAX_CANDIDATES], 2)]
    for names in [*trials, numbers]:
        typed = rows.assign(**{name: texts[name] for name in names})
        if _refusal(typed, client) is None:
            return typed
    return rows


def _explain(rows: pd.DataFrame, client: FHEClient, error: Exception) -> str:
    """Name the first value that the model refuses, and one that it accepts."""

    def refusal(part: pd.DataFrame) -> Exception | None:
        return _refusal(_typed(part), client)

    if refusal(rows) is None:
        return str(error)
    n_fitting, n_failing = 0, len(rows)
    while n_failing - n_fitting > 1:
        middle = (n_fitting + n_failing) // 2
        if refusal(rows[:middle]) is None:
            n_fitting = middle
        else:
            n_failing = middle
    row = rows[n_fitting:n_failing]
    reason = refusal(row) or error
    for column in rows.columns:
        for other in [0, *rows[column].drop_duplicates()[:_MAX_CANDIDATES]]:
            if refusal(row.assign(**{column: [other]})) is None:
                value = row[column].item()
                got = "nothing" if value != value or value is None else repr(value)
                expected = "a number" if _is_number(other) else f"a value such as {other!r}"
                return (
                    f"Row {n_failing}, column {column!r}: expected {expected}. Got {got}. {reason}"
                )
    return f"Row {n_failing}: {reason}"


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _typed(part: pd.DataFrame) -> pd.DataFrame:
    """Convert columns to the types that they have without the other rows."""
    import pandas as pd

    part = part.copy()
    for column in part.columns[part.notna().any()]:
        with suppress(TypeError, ValueError):
            part[column] = pd.to_numeric(part[column])
    return part
