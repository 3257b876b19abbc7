"""Masks of seeded ciphertexts by the processor's own AES, many times as fast as the kernel's.

Concrete's generator gives AES-128 of 0, 1, 2, … under the seed, without the first byte. Masks are
public, and no secret is drawn here.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from cipherlearn.engines.kernels._wire import Words

__all__ = ["draw_masks"]


@lru_cache(maxsize=16)
def _counters(dimension: int) -> bytes:
    """Plain text of a mask of so many words."""
    counters = np.zeros((dimension // 2 + 1, 2), dtype="<u8")
    counters[:, 0] = np.arange(len(counters))
    return counters.tobytes()


def draw_masks(seeded: Words, dimension: int) -> Words:
    """Make ciphertexts (n, dimension + 1) of seeded ones (n, 3).

    Raises
    ------
    ImportError
        If cryptography is not installed.
    """
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    full = np.empty((len(seeded), dimension + 1), dtype=np.uint64)
    full[:, dimension] = seeded[:, 2]
    mode, counters = modes.ECB(), _counters(dimension)
    for ciphertext, words in zip(full, seeded, strict=True):
        drawn = Cipher(algorithms.AES(words[:2].tobytes()), mode).encryptor().update(counters)
        ciphertext[:dimension] = np.frombuffer(drawn, np.uint64, dimension, offset=1)
    return full
