"""Integer programs as files: JSON and ``.npy`` arrays in one zip archive, and no pickle.

``docs/program_format.rst`` describes the format. A change of it raises ``FORMAT_VERSION``, and
files of every earlier version stay readable.
"""

from __future__ import annotations

import json
import os
import zipfile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn._exceptions import ProgramFormatError
from cipherlearn._members import array_bytes, array_from, read_members, refusing_damage
from cipherlearn.program._decoder import OutputScaler
from cipherlearn.program._encoder import InputQuantizer
from cipherlearn.program._layer import IntegerLayer
from cipherlearn.program._program import IntegerProgram

__all__ = ["FORMAT_VERSION", "load_program", "save_program"]

FORMAT_NAME = "cipherlearn-program"
FORMAT_VERSION = 3

# Thresholds of the rule of version 1, at most, for all codes together.
_MAX_THRESHOLDS = 1 << 24

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
        "n_features": program.n_features,
        "n_layers": len(program.layers),
        "lsbs_to_remove": [layer.lsbs_to_remove for layer in program.layers],
    }
    arrays: dict[str, Any] = {
        "input_feature": program.quantizer.feature,
        "input_thresholds": program.quantizer.thresholds,
        "output_gain": program.scaler.gain,
        "output_bias": program.scaler.bias,
        "output_offset": program.scaler.offset,
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
    with refusing_damage(ProgramFormatError, rule, remedy):
        members = read_members(file)
        header = json.loads(members["program.json"])
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


def _build(header: dict[str, Any], members: dict[str, bytes]) -> IntegerProgram:
    def array(name: str) -> NDArray:
        return array_from(members[f"{name}.npy"])

    n_layers = int(header["n_layers"])
    lsbs_to_remove = header["lsbs_to_remove"] if header["version"] >= 3 else [0] * n_layers
    layers = [
        IntegerLayer(
            weights=array(f"layer_{i}_weights"),
            input_low=array(f"layer_{i}_input_low"),
            input_high=array(f"layer_{i}_input_high"),
            tables=array(f"layer_{i}_tables") if i < n_layers - 1 else None,
            lsbs_to_remove=int(lsbs_to_remove[i]),
        )
        for i in range(n_layers)
    ]
    if header["version"] == 1:
        quantizer = _affine_quantizer(
            array("input_offset"), array("input_step"), int(header["input_bits"])
        )
        offset = None
    else:
        offset = array("output_offset")
        quantizer = InputQuantizer(
            int(header["n_features"]), array("input_feature"), array("input_thresholds")
        )
    return IntegerProgram(
        quantizer=quantizer,
        layers=tuple(layers),
        scaler=OutputScaler(array("output_gain"), array("output_bias"), offset),
    )


def _affine_quantizer(offset: NDArray, step: NDArray, n_bits: int) -> InputQuantizer:
    """Give the rule of version 1, ``rint(clip((x - offset) / step))``, as thresholds.

    A threshold is the smallest float that the rule, which never decreases, maps to its code.
    """
    if not 1 <= n_bits <= 16 or len(offset) << n_bits > _MAX_THRESHOLDS:
        raise ValueError("An affine rule has 1 to 16 bits, and not more codes than a row has")
    if not (step > 0).all() or not np.isfinite([offset, step]).all():
        raise ValueError("An affine rule needs finite offsets and positive steps")
    codes = np.arange(1, 2**n_bits)
    largest = float(np.finfo(np.float64).max)
    # Floats are ordered as the integers of their bits are, so 64 halvings find any of them.
    low = np.full((len(offset), len(codes)), _ordered(-largest))
    high = np.full_like(low, _ordered(largest))
    for _ in range(64):
        middle = low // 2 + high // 2 + (low % 2 + high % 2) // 2
        with np.errstate(over="ignore"):
            units = (_float_at(middle) - offset[:, None]) / step[:, None]
        reached = np.rint(units) >= codes
        high = np.where(reached, middle, high)
        low = np.where(reached, low, middle)
    thresholds = _float_at(high)
    return InputQuantizer(len(offset), np.arange(len(offset)), thresholds)


def _ordered(x: float) -> int:
    bits = int(np.float64(abs(x)).view(np.int64))
    return bits if x >= 0 else -bits


def _float_at(ordered: NDArray) -> NDArray:
    magnitude = np.abs(ordered).view(np.float64)
    return np.where(ordered >= 0, magnitude, -magnitude)
