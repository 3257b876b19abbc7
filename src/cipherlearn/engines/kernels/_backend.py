"""Interface of the kernels, which other hardware could implement too, and its CPU version."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cipherlearn._checks import check_int
from cipherlearn.engines.kernels._library import Library, Seed, pointer
from cipherlearn.engines.kernels._masks import draw_masks
from cipherlearn.engines.kernels._parameters import BootstrapKey, KeyswitchKey
from cipherlearn.engines.kernels._wire import Words

__all__ = ["Backend", "CpuBackend", "count_threads", "in_threads"]

# Part of a keyswitch key that stays in cache while it is applied to all ciphertexts.
_BLOCK_BYTES = 2**21

# Numbers of threads set by users and job schedulers. The first that is set counts.
_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Backend(Protocol):
    """Operations of evaluation on some hardware, where keys may be kept in any form."""

    def bootstrap_key(self, shape: BootstrapKey, sent: Words) -> Any:
        """Load a bootstrap key from the words that were sent."""

    def keyswitch_key(self, shape: KeyswitchKey, sent: Words) -> Any:
        """Load a keyswitch key from the words that were sent."""

    def expand(self, seeded: Words, dimension: int, n_threads: int) -> Words:
        """Expand seeded ciphertexts of shape (n, 3) to (n, dimension + 1)."""

    def keyswitch(self, shape: KeyswitchKey, key: Any, inputs: Words, n_threads: int) -> Words:
        """Switch ciphertexts of shape (n, n_in + 1) to another key: (n, n_out + 1)."""

    def bootstrap(
        self,
        shape: BootstrapKey,
        key: Any,
        inputs: Words,
        polynomials: Words,
        repeats: int,
        n_threads: int,
    ) -> Words:
        """Look ciphertexts up in tables, each of which serves ``repeats`` ciphertexts in a row."""


def count_threads(n_threads: int | None = None) -> int:
    """Return the number of threads to compute in.

    Parameters
    ----------
    n_threads : int or None, default=None
        ``None`` stands for ``OMP_NUM_THREADS``, ``OPENBLAS_NUM_THREADS`` or ``MKL_NUM_THREADS``,
        or else for the number of processor cores that the process may use.

    Examples
    --------
    >>> from cipherlearn.engines.kernels import count_threads
    >>> count_threads(3)
    3
    """
    if n_threads is not None:
        return check_int("n_threads", n_threads, 1)
    for name in _VARIABLES:
        first = os.environ.get(name, "").split(",")[0].strip()
        if first.isdecimal() and int(first) > 0:
            return int(first)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class CpuBackend:
    """Concrete's kernels on processor cores."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._draws_masks = self._has_the_kernels_masks()

    def _has_the_kernels_masks(self) -> bool:
        """Whether masks can be drawn without the kernels, with the same result."""
        seeded, drawn = np.array([[1, 2, 3]], dtype=np.uint64), np.empty((1, 10), dtype=np.uint64)
        try:
            draw_masks(drawn, seeded[:, :2], seeded[:, 2:])
        except ImportError:
            return False
        return np.array_equal(drawn, self._expand(seeded, 9, 1))

    def bootstrap_key(self, shape: BootstrapKey, sent: Words) -> NDArray[np.complex128]:
        """Decompress a bootstrap key and transform it."""
        library, full = self._library, sent
        if shape.seeded:
            size = shape.polynomial_size
            row = (shape.k + 1) * size
            full = np.empty((shape.n_words // row, row), dtype=np.uint64)
            if self._draws_masks:
                draw_masks(full, sent[None, :2], sent[2:].reshape(len(full), size))
            else:
                library.decompress_seeded_lwe_bootstrap_key_u64(
                    pointer(full),
                    pointer(sent) + 16,
                    *(shape.n, size, shape.k, shape.levels, shape.base_log),
                    _seed(sent),
                    0,
                )
        fourier = np.empty(shape.n_words // 2, dtype=np.complex128)
        fft = library.fft(shape.polynomial_size)
        scratch = library.scratch("bootstrap_key_convert_u64_to_fourier", fft)
        library.bootstrap_key_convert_u64_to_fourier(
            pointer(full),
            pointer(fourier),
            *(shape.levels, shape.base_log, shape.k, shape.polynomial_size, shape.n),
            fft,
            pointer(scratch),
            len(scratch),
        )
        return fourier

    def keyswitch_key(self, shape: KeyswitchKey, sent: Words) -> Words:
        """Decompress a keyswitch key."""
        if not shape.seeded:
            return sent.copy()
        full = np.empty((shape.n_in * shape.levels, shape.n_out + 1), dtype=np.uint64)
        if self._draws_masks:
            draw_masks(full, sent[None, :2], sent[2:, None])
        else:
            self._library.decompress_seeded_lwe_keyswitch_key_u64(
                pointer(full),
                pointer(sent) + 16,
                *(shape.n_in, shape.n_out, shape.levels, shape.base_log),
                _seed(sent),
                0,
            )
        return full

    def expand(self, seeded: Words, dimension: int, n_threads: int) -> Words:
        """Draw the masks of seeded ciphertexts."""
        if not self._draws_masks:
            return self._expand(seeded, dimension, n_threads)
        full = np.empty((len(seeded), dimension + 1), dtype=np.uint64)
        draw_masks(full, seeded[:, :2], seeded[:, 2:])
        return full

    def _expand(self, seeded: Words, dimension: int, n_threads: int) -> Words:
        full = np.empty((len(seeded), dimension + 1), dtype=np.uint64)
        kernel = self._library.decompress_seeded_lwe_ciphertext_u64
        at, bodies_at = pointer(full), pointer(seeded) + 16

        def draw(_: int, i: int) -> None:
            kernel(
                at + i * full.strides[0],
                bodies_at + i * seeded.strides[0],
                dimension,
                _seed(seeded[i]),
            )

        in_threads(n_threads, len(seeded), draw)
        return full

    def keyswitch(self, shape: KeyswitchKey, key: Words, inputs: Words, n_threads: int) -> Words:
        """Switch ciphertexts to another key, one block of its words at a time.

        A keyswitch is a sum over the words of the mask, so blocks of them are computed separately
        and added. The kernel copies the word behind each block into the body: it is subtracted.
        """
        kernel = self._library.keyswitch_lwe_ciphertext_u64
        n, n_out, row_bytes = len(inputs), shape.n_out, shape.levels * (shape.n_out + 1) * 8
        if n == 1 and n_threads == 1:
            size = shape.n_in
        else:
            size = max(1, min(_BLOCK_BYTES // row_bytes, -(-shape.n_in // n_threads)))
        starts = range(0, shape.n_in, size)
        sums = np.zeros((min(n_threads, len(starts)), n, n_out + 1), dtype=np.uint64)
        part = np.empty_like(sums)
        key_at, in_at, out_bytes = pointer(key), pointer(inputs), (n_out + 1) * 8

        def switch(worker: int, block: int) -> None:
            start = starts[block]
            words = min(size, shape.n_in - start)
            source, target = in_at + start * 8, pointer(part[worker])
            for _ in range(n):
                kernel(
                    target,
                    source,
                    key_at + start * row_bytes,
                    *(shape.levels, shape.base_log, words, n_out),
                )
                source, target = source + inputs.strides[0], target + out_bytes
            np.add(sums[worker], part[worker], out=sums[worker])

        in_threads(len(sums), len(starts), switch)
        result: Words = sums[0] if len(sums) == 1 else sums.sum(axis=0, dtype=np.uint64)
        result[:, n_out] -= inputs[:, size : shape.n_in : size].sum(axis=1, dtype=np.uint64)
        return result

    def bootstrap(
        self,
        shape: BootstrapKey,
        key: NDArray[np.complex128],
        inputs: Words,
        polynomials: Words,
        repeats: int,
        n_threads: int,
    ) -> Words:
        """Look ciphertexts up in tables."""
        library, kernel = self._library, self._library.bootstrap_lwe_ciphertext_u64
        n, size, mask = len(inputs), shape.polynomial_size, shape.k * shape.polynomial_size
        n_threads = min(n_threads, n)
        fft = library.fft(size)
        scratch = [
            library.scratch("bootstrap_lwe_ciphertext_u64", shape.k, size, fft)
            for _ in range(n_threads)
        ]
        accumulators = np.zeros((n_threads, mask + size), dtype=np.uint64)
        result = np.empty((n, mask + 1), dtype=np.uint64)
        out_at, in_at, key_at = pointer(result), pointer(inputs), pointer(key)
        constants = (shape.levels, shape.base_log, shape.k, size, shape.n, fft)

        def look_up(worker: int, i: int) -> None:
            accumulators[worker, mask:] = polynomials[i // repeats]
            kernel(
                out_at + i * result.strides[0],
                in_at + i * inputs.strides[0],
                pointer(accumulators[worker]),
                key_at,
                *constants,
                pointer(scratch[worker]),
                len(scratch[worker]),
            )

        in_threads(n_threads, n, look_up)
        return result


def _seed(words: Words) -> Seed:
    """Return the seed, which the first two words hold."""
    return Seed((ctypes.c_uint8 * 16).from_buffer_copy(words[:2].tobytes()))


def in_threads(n_threads: int, n_tasks: int, task: Callable[[int, int], None]) -> None:
    """Run tasks by number in threads, including this one, each as soon as a thread is free."""
    tasks = iter(range(n_tasks))
    errors: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            for i in tasks:
                task(worker, i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(1, min(n_threads, n_tasks))]
    for thread in threads:
        thread.start()
    work(0)
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
