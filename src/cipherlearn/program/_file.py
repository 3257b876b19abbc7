"""Integer programs as files: JSON and ``.npy`` arrays in one zip archive, and no pickle.

``docs/program_format.rst`` describes the format. A change of it raises ``FORMAT_VERSION``, and
files of every earlier version stay readable.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn._exceptions import ProgramFormatError
from cipherlearn._guarded_zip import (
    array_bytes,
    array_from,
    json_from,
    read_file,
    read_members,
    refusing_damage,
)
from cipherlearn.program._decoder import OutputScaler
from cipherlearn.program._encoder import InputQuantizer
from cipherlearn.program._former_files import build_chain
from cipherlearn.program._nodes import Lookup, Sum
from cipherlearn.program._program import IntegerProgram

__all__ = ["FORMAT_VERSION", "load_program", "save_program"]

FORMAT_NAME = "cipherlearn-program"
FORMAT_VERSION = 5

# Largest number of rows of an array: neurons of a node, or codes. Proofs make objects for each.
_MAX_ROWS = 1 << 20

# Names of the arrays of each kind of node.
_ARRAYS: dict[type, tuple[str, ...]] = {Sum: ("weights", "constant"), Lookup: ("tables", "low")}

File = str | os.PathLike[str] | IO[bytes]


def save_program(program: IntegerProgram, file: File) -> None:
    """Write a program to a file that :func:`load_program` reads.

    Parameters
    ----------
    program : IntegerProgram
        The program, such as ``clf.program_``.
    file : str, path or binary file
        Where to write. An existing file is replaced.

    Raises
    ------
    ValueError
        If the program is larger than :func:`load_program` reads.

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
        "n_features": program.n_features,
        "n_components": program.quantizer.n_components,
        "n_inputs": len(program.inputs),
        "nodes": [_describe(node) for node in program.nodes],
        "outputs": list(program.outputs),
    }
    arrays: dict[str, Any] = {
        **program.quantizer.arrays(),
        "output_gain": program.scaler.gain,
        "output_bias": program.scaler.bias,
        "output_offset": program.scaler.offset,
    }
    for i, columns in enumerate(program.inputs):
        arrays[f"input_{i}_codes"] = columns
    for i, node in enumerate(program.nodes):
        for name in _ARRAYS[type(node)]:
            arrays[f"node_{i}_{name}"] = getattr(node, name)
    for name, array in arrays.items():
        _check_rows(name, array)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("program.json", json.dumps(header, indent=2))
        for name, array in arrays.items():
            archive.writestr(f"{name}.npy", array_bytes(array))


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
    rule = f"A program file must be an undamaged {FORMAT_NAME} archive."
    remedy = "Write it again with save_program."
    content = read_file(file)
    with refusing_damage(ProgramFormatError, rule, remedy):
        members = read_members(content)
        header = json_from(members["program.json"])
        _check_header(header)
        return _build(header, members)


def _check_header(header: Any) -> None:
    if not isinstance(header, dict) or header.get("format") != FORMAT_NAME:
        raise ProgramFormatError(
            f"A program file must name its format as {FORMAT_NAME!r}. Got {header!r:.100}."
        )
    version = header.get("version")
    if isinstance(version, bool) or version not in range(1, FORMAT_VERSION + 1):
        raise ProgramFormatError(
            f"This cipherlearn reads program format versions 1 to {FORMAT_VERSION}. "
            f"Got version {version!r}. Use the cipherlearn that wrote it."
        )


def _check_rows(name: str, array: NDArray[Any]) -> NDArray[Any]:
    if np.ndim(array) and len(array) > _MAX_ROWS:
        raise ValueError(
            f"An array of a program file must have at most {_MAX_ROWS} rows. {name} has "
            f"{len(array)}. Use fewer features or neurons."
        )
    return array


def _describe(node: Sum | Lookup) -> dict[str, Any]:
    if isinstance(node, Sum):
        return {"kind": "sum", "reads": list(node.reads)}
    return {"kind": "lookup", "reads": node.reads, "lsbs_to_remove": node.lsbs_to_remove}


def _build(header: dict[str, Any], members: dict[str, bytes]) -> IntegerProgram:
    def array(name: str) -> NDArray[Any]:
        return _check_rows(name, array_from(members[f"{name}.npy"]))

    if header["version"] < 4:
        return build_chain(header, array)
    return IntegerProgram(
        InputQuantizer.from_arrays(
            int(header["n_features"]), int(header.get("n_components", 0)), array
        ),
        tuple(array(f"input_{i}_codes") for i in range(header["n_inputs"])),
        tuple(_node(i, node, array) for i, node in enumerate(header["nodes"])),
        tuple(header["outputs"]),
        OutputScaler(array("output_gain"), array("output_bias"), array("output_offset")),
    )


def _node(i: int, node: dict[str, Any], array: Callable[[str], NDArray[Any]]) -> Sum | Lookup:
    kind = {"sum": Sum, "lookup": Lookup}[node["kind"]]
    arrays = {name: array(f"node_{i}_{name}") for name in _ARRAYS[kind]}
    if kind is Sum:
        return Sum(tuple(node["reads"]), **arrays)
    return Lookup(node["reads"], lsbs_to_remove=int(node["lsbs_to_remove"]), **arrays)
