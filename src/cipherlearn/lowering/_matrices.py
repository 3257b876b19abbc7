"""Convolutions, pooling and reductions as matrices over the flattened tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from cipherlearn.program._values import IntArray

__all__ = ["adaptive_windows", "as_tuple", "convolution", "padding_of", "pooling", "windows"]


def as_tuple(value: Any, n: int) -> tuple[int, ...]:
    """Repeat a number for each of n dimensions."""
    return tuple(int(v) for v in value) if isinstance(value, Sequence) else (int(value),) * n


def windows(
    shape: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Sequence[tuple[int, int]],
    dilation: tuple[int, ...],
) -> IntArray:
    """List the elements that each window of each channel holds.

    Parameters
    ----------
    shape : tuple of int
        Channels, and sizes of the one or two other dimensions.
    kernel, stride, dilation : tuple of int
    padding : sequence of (int, int)
        Before and after, for each dimension.

    Returns
    -------
    ndarray of shape (channels, *kernel, *positions)
        Numbers of elements of the flattened tensor. -1 stands for padding.

    Examples
    --------
    >>> from cipherlearn.lowering._matrices import windows
    >>> windows((1, 4), (2,), (2,), [(1, 1)], (1,))[0].tolist()
    [[-1, 1, 3], [0, 2, -1]]
    """
    elements = np.arange(int(np.prod(shape))).reshape(shape)
    elements = np.pad(elements, [(0, 0), *padding], constant_values=-1)
    positions = [
        (size - d * (k - 1) - 1) // s + 1
        for size, k, s, d in zip(elements.shape[1:], kernel, stride, dilation, strict=True)
    ]
    if min(positions) < 1:
        raise ValueError(f"A kernel must fit its input. Got {kernel} for {shape[1:]}.")
    found = np.empty((shape[0], *kernel, *positions), dtype=np.int64)
    for offset in np.ndindex(*kernel):
        cut = [
            slice(o * d, o * d + s * (p - 1) + 1, s)
            for o, d, s, p in zip(offset, dilation, stride, positions, strict=True)
        ]
        to, of = (slice(None), *offset), (slice(None), *cut)
        found[to] = elements[of]
    return found


def convolution(
    weight: IntArray, read: IntArray, n_elements: int, groups: int
) -> tuple[csr_array, tuple[int, ...]]:
    """Make the matrix of a convolution, and the shape of what it gives.

    Parameters
    ----------
    weight : ndarray of shape (filters, channels of a group, *kernel)
    read : ndarray
        As :func:`windows` gives it.
    n_elements : int
        Elements of the input.
    groups : int

    Examples
    --------
    >>> import numpy as np
    >>> from cipherlearn.lowering._matrices import convolution, windows
    >>> read = windows((1, 3), (2,), (1,), [(0, 0)], (1,))
    >>> matrix, shape = convolution(np.array([[[1, -1]]]), read, 3, groups=1)
    >>> matrix.toarray().tolist(), shape
    ([[1, -1, 0], [0, 1, -1]], (1, 2))
    """
    n_filters, n_channels, *kernel = weight.shape
    positions = read.shape[1 + len(kernel) :]
    n_positions = int(np.prod(positions))
    flat = read.reshape(read.shape[0], -1, n_positions)
    rows, columns, data = [], [], []
    for number, of_filter in enumerate(weight.reshape(n_filters, n_channels, -1)):
        group = number // (n_filters // groups)
        channels, taps = np.nonzero(of_filter)
        elements = flat[group * n_channels + channels, taps]
        inside = elements >= 0
        row = np.broadcast_to(number * n_positions + np.arange(n_positions), elements.shape)
        values = np.broadcast_to(of_filter[channels, taps][:, None], elements.shape)
        rows.append(row[inside])
        columns.append(elements[inside])
        data.append(values[inside])
    matrix = _matrix(data, rows, columns, (n_filters * n_positions, n_elements))
    return matrix, (n_filters, *positions)


def padding_of(layer: Any, sizes: tuple[int, ...], name: str) -> list[tuple[int, int]]:
    """Return what a convolution adds before and after each dimension."""
    if layer.padding_mode != "zeros":
        raise ValueError(
            f"Padding must be with zeros. That of {name} is {layer.padding_mode!r}. Use "
            'padding_mode="zeros".'
        )
    if layer.padding != "same" and not getattr(layer, "is_same_padded_strided", False):
        return [
            (p, p) for p in as_tuple(0 if layer.padding == "valid" else layer.padding, len(sizes))
        ]
    added = []
    for size, k, s, d in zip(sizes, layer.kernel_size, layer.stride, layer.dilation, strict=True):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        added.append((total // 2, total - total // 2))
    return added


def pooling(read: IntArray, n_elements: int) -> csr_array:
    """Make the matrix that adds up each window of shape (n_windows, n_taps); -1 is nothing."""
    rows, taps = np.nonzero(read >= 0)
    ones = np.ones(len(rows), dtype=np.int64)
    return _matrix([ones], [rows], [read[rows, taps]], (len(read), n_elements))


def adaptive_windows(shape: tuple[int, ...], size: tuple[int, ...]) -> IntArray:
    """List the elements of the windows of adaptive pooling, of shape (n_windows, n_taps).

    -1 fills windows up.
    """
    elements = np.arange(int(np.prod(shape))).reshape(shape)
    spans = [
        [(i * n // k, -(-(i + 1) * n // k)) for i in range(k)]
        for n, k in zip(shape[1:], size, strict=True)
    ]
    found = []
    for channel in elements:
        for at in np.ndindex(*size):
            cut = tuple(slice(*spans[d][i]) for d, i in enumerate(at))
            found.append(channel[cut].ravel())
    n_taps = max(map(len, found))
    padded = [np.pad(taps, (0, n_taps - len(taps)), constant_values=-1) for taps in found]
    return np.stack(padded)


def _matrix(data: list[NDArray], rows: list[NDArray], columns: list[NDArray], shape) -> csr_array:
    coordinates = np.concatenate(rows), np.concatenate(columns)
    return csr_array((np.concatenate(data), coordinates), shape=shape, dtype=np.int64)
