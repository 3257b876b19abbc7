"""Tables of rows and of predictions: CSV and Parquet files, and CSV on the standard streams."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cipherlearn._guarded_zip import refusing_damage

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SEPARATORS", "STREAM", "Table", "check_target", "read_table", "write_table"]

# Name of the standard input and output.
STREAM = "-"

# Separators that are detected. The first wins a tie.
SEPARATORS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Table:
    """Table of rows that was read from a file.

    Parameters
    ----------
    rows : DataFrame
    texts : DataFrame
        The same rows, with the values of a CSV file as text.
    ids : dict of str to sequence
        Columns to be carried through, as they stand in the file.
    separator : str
        Separator of the CSV file, or a comma for other files.
    missing : dict of str to list of str
        Texts of a CSV file that were read as missing values, by the column, such as "NA".
    """

    rows: pd.DataFrame
    texts: pd.DataFrame
    ids: Mapping[str, Sequence]
    separator: str
    missing: Mapping[str, Sequence[str]] = field(default_factory=dict)


def check_target(target: str) -> None:
    """Check that predictions can be written, before rows are encrypted for hours."""
    if target == STREAM:
        return
    path = Path(target)
    _check_suffix(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The directory of the predictions must exist. Got {path.parent}.")
    if path.is_dir():
        raise IsADirectoryError(f"The predictions go into a file. {path} is a directory.")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"The predictions cannot be written to {path.parent}.")
    if path.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise ImportError("Parquet files need pyarrow: pip install 'cipherlearn[client]'")


def read_table(source: str, separator: str | None, ids: Sequence[str]) -> Table:
    """Read a table, or raise ValueError if the source holds none.

    Parameters
    ----------
    source : str
        A file, or ``-`` for CSV on the standard input.
    separator : str or None
        Separator of a CSV file. ``None`` detects it.
    ids : sequence of str
        Columns to be carried through.
    """
    import pandas as pd

    if source != STREAM:
        _check_suffix(Path(source))
    if source.endswith(".parquet"):
        rule = f"A table must be whole. {source} cannot be read:"
        # pyarrow raises whatever it meets.
        with refusing_damage(ValueError, rule, "Write it again.", passing=(ImportError, OSError)):
            rows = pd.read_parquet(source)
        _check_header(source, list(rows.columns), ids)
        if rows.empty:
            raise ValueError(f"A table needs rows. {source} has none.")
        ids_as_read = {name: rows[name].array for name in ids}
        return Table(rows, rows, ids_as_read, separator or SEPARATORS[0])
    content = sys.stdin.buffer.read() if source == STREAM else Path(source).read_bytes()
    shown = "The standard input" if source == STREAM else source
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"A table must be encoded as UTF-8. {shown} is not: {error}.") from error
    if not text.strip():
        raise ValueError(f"A table needs a header and rows. {shown} is empty.")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    try:
        separator = separator or _find_separator(text)
        reader = csv.reader(io.StringIO(text), delimiter=separator)
        header, *lines = (line for line in reader if line)
    except csv.Error as error:
        raise ValueError(f"A table must be CSV. {shown} is not: {error}.") from error
    _check_header(shown, header, ids)
    if not lines:
        raise ValueError(f"A table needs rows. {shown} has a header only.")
    for number, line in enumerate(lines, start=1):
        if len(line) != len(header):
            raise ValueError(
                f"Each row must have as many values as the header has names, {len(header)}. Row "
                f"{number} of {shown} has {len(line)}. The separator is {separator!r}; --separator "
                "names another."
            )
    rows = pd.read_csv(io.StringIO(text), sep=separator)
    texts = pd.read_csv(io.StringIO(text), sep=separator, dtype=str)
    # Without a value there is no type either, and numbers would be the wrong one for categories.
    empty = rows.columns[rows.isna().all()]
    rows = rows.astype(dict.fromkeys(empty, object))
    if len(rows) != len(lines):
        raise ValueError(f"{shown} must have no rows of blanks alone. Remove them.")
    carried = {name: [line[header.index(name)] for line in lines] for name in ids}
    missing = {}
    for i, name in enumerate(rows.columns):
        found = {lines[row][i] for row in rows[name].isna().to_numpy().nonzero()[0]}
        if filled := sorted(text for text in found if text.strip()):
            missing[name] = filled
    return Table(rows, texts, carried, separator, missing)


def write_table(predictions: pd.DataFrame, target: str, separator: str) -> None:
    """Write predictions to a file, or as CSV to the standard output if the target is ``-``."""
    if target.endswith(".parquet"):
        predictions.to_parquet(target, index=False)
    else:
        file = sys.stdout if target == STREAM else target
        predictions.to_csv(file, sep=separator, index=False)


def _check_suffix(path: Path) -> None:
    if path.suffix not in (".csv", ".parquet"):
        raise ValueError(
            f"A table must be a .csv or .parquet file, or - for CSV on the standard input or "
            f"output. Got {path}."
        )


def _check_header(shown: str, header: Sequence[str], ids: Sequence[str]) -> None:
    doubled = [name for name, count in Counter(header).items() if count > 1]
    if doubled:
        raise ValueError(f"Columns must have different names. {shown} has {doubled} repeatedly.")
    if missing := [name for name in ids if name not in header]:
        raise ValueError(f"--id must name columns of {shown}, {list(header)}. Got {missing}.")


def _find_separator(text: str) -> str:
    """Return the separator that splits the header into the most names."""

    def n_names(separator: str) -> int:
        return len(next(csv.reader(io.StringIO(text.lstrip()), delimiter=separator)))

    return max(SEPARATORS, key=n_names)
