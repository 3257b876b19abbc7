"""Average, sum and max pooling, as layers and as functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from cipherlearn.lowering._arithmetic import Arithmetic
from cipherlearn.lowering._matrices import adaptive_windows, as_tuple, pooling, windows
from cipherlearn.lowering._maximum import maximum
from cipherlearn.lowering._signals import Signal, Sums
from cipherlearn.program._values import IntArray

__all__ = ["pool_of"]

Pool = Callable[[Arithmetic, Signal, str], Signal]

_LAYERS: dict[type[nn.Module], tuple[str, tuple[str, ...]]] = {
    nn.AvgPool1d: (
        "avg_pool1d",
        ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"),
    ),
    nn.AvgPool2d: (
        "avg_pool2d",
        ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    ),
    nn.MaxPool1d: ("max_pool1d", ("kernel_size", "stride", "padding", "dilation", "ceil_mode")),
    nn.MaxPool2d: ("max_pool2d", ("kernel_size", "stride", "padding", "dilation", "ceil_mode")),
    nn.AdaptiveAvgPool1d: ("adaptive_avg_pool1d", ("output_size",)),
    nn.AdaptiveAvgPool2d: ("adaptive_avg_pool2d", ("output_size",)),
}
_ARGUMENTS = dict(_LAYERS.values())


def pool_of(
    called: nn.Module | str, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
) -> Pool | None:
    """Return what pools as a layer or a function of this name does, or None if neither pools."""
    if isinstance(called, nn.Module):
        if type(called) not in _LAYERS:
            return None
        name, names = _LAYERS[type(called)]
        options = {argument: getattr(called, argument) for argument in names}
    elif called in _ARGUMENTS:
        name = called
        options = {**dict(zip(_ARGUMENTS[name], args, strict=False)), **(kwargs or {})}
    elif called in ("mean", "sum"):
        options = {**dict(zip(("dim", "keepdim"), args, strict=False)), **(kwargs or {})}
        return lambda arithmetic, x, owner: _reduce(
            arithmetic, x, owner, called == "mean", **options
        )
    else:
        return None
    if name.startswith("adaptive"):
        return lambda arithmetic, x, owner: _adaptive(arithmetic, x, owner, options["output_size"])
    if name.startswith("avg"):
        return lambda arithmetic, x, owner: _average(arithmetic, x, owner, int(name[-2]), **options)
    return lambda arithmetic, x, owner: _maximum(arithmetic, x, owner, int(name[-2]), **options)


def _windows(
    x: Signal,
    n: int,
    owner: str,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> tuple[IntArray, tuple[int, ...]]:
    """List the elements of every window, and the shape of what is pooled."""
    if len(x.shape) != n + 1 or ceil_mode:
        raise ValueError(
            f"Pooling needs channels and {n} dimension(s), and ceil_mode=False. {owner} reads "
            f"{x.shape} with ceil_mode={ceil_mode}."
        )
    kernel, padded = as_tuple(kernel_size, n), as_tuple(padding, n)
    steps = kernel if stride is None or stride == [] else as_tuple(stride, n)
    read = windows(x.shape, kernel, steps, [(p, p) for p in padded], as_tuple(dilation, n))
    shape = (read.shape[0], *read.shape[1 + n :])
    taps = read.reshape(read.shape[0], int(np.prod(kernel)), -1).transpose(0, 2, 1)
    return taps.reshape(-1, taps.shape[2]), shape


def _average(
    arithmetic: Arithmetic,
    x: Signal,
    owner: str,
    n: int,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Signal:
    read, shape = _windows(x, n, owner, kernel_size, stride, padding, 1, ceil_mode)
    counts = np.full(len(read), read.shape[1]) if count_include_pad else (read >= 0).sum(axis=1)
    if divisor_override is not None:
        counts = np.full(len(read), divisor_override)
    return _divided(arithmetic, x, owner, read, shape, counts)


def _adaptive(arithmetic: Arithmetic, x: Signal, owner: str, output_size: Any) -> Signal:
    n = len(x.shape) - 1
    given = output_size if isinstance(output_size, tuple | list) else (output_size,) * n
    size = tuple(x.shape[1 + i] if k is None else int(k) for i, k in enumerate(given))
    read = adaptive_windows(x.shape, size)
    return _divided(arithmetic, x, owner, read, (x.shape[0], *size), (read >= 0).sum(axis=1))


def _divided(
    arithmetic: Arithmetic,
    x: Signal,
    owner: str,
    read: IntArray,
    shape: tuple[int, ...],
    counts: IntArray,
) -> Signal:
    matrix = pooling(read, int(np.prod(x.shape)))
    return arithmetic.combine(x, matrix, 1 / counts, shape, owner)


def _reduce(
    arithmetic: Arithmetic,
    x: Signal,
    owner: str,
    is_mean: bool,
    dim: Any = None,
    keepdim: bool = False,
) -> Signal:
    """Add up, or average, over dimensions."""
    n_dimensions = 1 + len(x.shape)
    given = () if dim is None else as_tuple(dim, 1)
    dims = sorted({d % n_dimensions for d in given})
    if not dims or 0 in dims:
        raise ValueError(f"Rows must stay apart. {owner} adds up rows: name dimensions from 1 on.")
    axes = [d - 1 for d in dims]
    others = [i for i in range(len(x.shape)) if i not in axes]
    elements = np.arange(int(np.prod(x.shape))).reshape(x.shape).transpose(*others, *axes)
    n_taps = int(np.prod([x.shape[i] for i in axes]))
    read = elements.reshape(-1, n_taps)
    shape = tuple(x.shape[i] for i in others)
    if keepdim:
        shape = tuple(1 if i in axes else size for i, size in enumerate(x.shape))
    counts = np.full(len(read), n_taps if is_mean else 1)
    return _divided(arithmetic, x, owner, read, shape, counts)


def _maximum(
    arithmetic: Arithmetic,
    x: Signal,
    owner: str,
    n: int,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Signal:
    if return_indices or not x.is_exact:
        raise ValueError(
            f"Max pooling compares integers, and gives no indices. {owner} reads what is not "
            "quantized. Put the quantizer before it: the result is the same."
        )
    read, shape = _windows(x, n, owner, kernel_size, stride, padding, dilation, ceil_mode)
    assert isinstance(x.source, Sums)
    sums = maximum(arithmetic.assembly, x.source, read, owner, shape)
    return Signal.of(sums, shape, owner)
