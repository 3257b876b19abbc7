"""Program files of format versions 1 to 3, which held a chain of layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cipherlearn.program._decoder import OutputScaler
from cipherlearn.program._encoder import InputQuantizer
from cipherlearn.program._layer import IntegerLayer
from cipherlearn.program._program import IntegerProgram
from cipherlearn.program._values import frozen

__all__ = ["build_chain"]

# Thresholds of the rule of version 1, at most, for all codes together.
_MAX_THRESHOLDS = 1 << 22


def build_chain(header: dict[str, Any], array: Callable[[str], NDArray[Any]]) -> IntegerProgram:
    """Make the program of a file of version 1, 2 or 3.

    Parameters
    ----------
    header : dict
        Content of ``program.json``.
    array : callable
        Function from the name of an array of the file to the array.
    """
    version, n_layers = header["version"], int(header["n_layers"])
    lsbs_to_remove = header["lsbs_to_remove"] if version >= 3 else [0] * n_layers
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
    if version == 1:
        offset, step = array("input_offset"), array("input_step")
        quantizer = _affine_quantizer(offset, step, int(header["input_bits"]))
        scaler = OutputScaler(array("output_gain"), array("output_bias"))
    else:
        quantizer = InputQuantizer(
            int(header["n_features"]), array("input_feature"), array("input_thresholds")
        )
        scaler = OutputScaler(array("output_gain"), array("output_bias"), array("output_offset"))
    return IntegerProgram.chain(quantizer, layers, scaler)


def _affine_quantizer(offset: NDArray[Any], step: NDArray[Any], n_bits: int) -> InputQuantizer:
    """Convert the rule of version 1, ``rint(clip((x - offset) / step))``, to thresholds.

    A threshold is the smallest float that the rule, which never decreases, maps to its code.
    """
    offset, step = frozen("offset", offset, np.float64, 1), frozen("step", step, np.float64, 1)
    if len(offset) != len(step):
        raise ValueError("An affine rule needs one step for each offset")
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


def _float_at(ordered: NDArray[Any]) -> NDArray[Any]:
    magnitude = np.abs(ordered).view(np.float64)
    return np.where(ordered >= 0, magnitude, -magnitude)
