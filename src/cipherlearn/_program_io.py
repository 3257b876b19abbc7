"""Integer programs as files: JSON and ``.npy`` arrays in one zip archive, and no pickle.

``docs/program_format.rst`` describes the format. A change of it raises ``FORMAT_VERSION``, and
files of every earlier version stay readable.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn._exceptions import ProgramFormatError
from cipherlearn._program import InputQuantizer, IntegerLayer, IntegerProgram, OutputScaler

__all__ = ["FORMAT_VERSION", "load_program", "save_program"]

FORMAT_NAME = "cipherlearn-program"
FORMAT_VERSION = 1

# What reading a damaged archive can raise.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)

File = str | os.PathLike[str] | IO[bytes]


def save_program(program: IntegerProgram, file: File) -> None:
    """Write a program to a file that :func:`load_program` reads.

    Parameters
    ----------
    program : IntegerProgram
        The program, such as ``clf.program_``.
    file : str, path or binary file
        Where to write. An existing file is replaced.

    Examples
    --------
    >>> import io
    >>> from cipherlearn import NeuralNetClassifier, load_program, save_program
    >>> clf = NeuralNetClassifier(max_epochs=5).fit([[0.0], [1.0]], [0, 1])
    >>> file = io.BytesIO()
    >>> save_program(clf.program_, file)
    >>> bool((load_program(file)([[0.5]]) == clf.program_([[0.5]])).all())
    True
    """
    header: dict[str, Any] = {
        "format": FORMAT_NAME,
        "version": FORMAT_VERSION,
        "input_bits": program.quantizer.n_bits,
        "n_layers": len(program.layers),
    }
    arrays = {
        "input_offset": program.quantizer.offset,
        "input_step": program.quantizer.step,
        "output_gain": program.scaler.gain,
        "output_bias": program.scaler.bias,
    }
    for i, layer in enumerate(program.layers):
        arrays[f"layer_{i}_weights"] = layer.weights
        arrays[f"layer_{i}_input_low"] = layer.input_low
        arrays[f"layer_{i}_input_high"] = layer.input_high
        if layer.tables is not None:
            arrays[f"layer_{i}_tables"] = layer.tables
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("program.json", json.dumps(header, indent=2))
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            archive.writestr(f"{name}.npy", buffer.getvalue())


def load_program(file: File) -> IntegerProgram:
    """Read a program that :func:`save_program` wrote.

    Nothing in the file is executed, and the program's ranges are proven again.

    Parameters
    ----------
    file : str, path or binary file
        Where to read from.

    Returns
    -------
    IntegerProgram

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ProgramFormatError
        If the file is not a program, is damaged, or is of a later version. It is a
        ``ValueError``.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            header = json.loads(archive.read("program.json"))
            _check_header(header)
            return _build(header, archive)
    except ProgramFormatError:
        raise
    except _DAMAGE as error:
        raise ProgramFormatError(
            f"A program file must be an undamaged {FORMAT_NAME} archive. {error}. "
            "Write it again with save_program."
        ) from error


def _check_header(header: Any) -> None:
    if not isinstance(header, dict) or header.get("format") != FORMAT_NAME:
        raise ProgramFormatError(
            f"A program file must name its format as {FORMAT_NAME!r}. Got {header!r:.100}."
        )
    if header.get("version") != FORMAT_VERSION:
        raise ProgramFormatError(
            f"This cipherlearn reads program format version {FORMAT_VERSION}. "
            f"Got version {header.get('version')!r}. Use the cipherlearn that wrote it."
        )


def _build(header: dict[str, Any], archive: zipfile.ZipFile) -> IntegerProgram:
    def array(name: str) -> NDArray:
        with archive.open(f"{name}.npy") as stream:
            return np.lib.format.read_array(io.BytesIO(stream.read()), allow_pickle=False)

    n_layers = int(header["n_layers"])
    layers = [
        IntegerLayer(
            weights=array(f"layer_{i}_weights"),
            input_low=array(f"layer_{i}_input_low"),
            input_high=array(f"layer_{i}_input_high"),
            tables=array(f"layer_{i}_tables") if i < n_layers - 1 else None,
        )
        for i in range(n_layers)
    ]
    return IntegerProgram(
        quantizer=InputQuantizer(
            array("input_offset"), array("input_step"), int(header["input_bits"])
        ),
        layers=tuple(layers),
        scaler=OutputScaler(array("output_gain"), array("output_bias")),
    )
