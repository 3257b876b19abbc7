"""Masks of seeded ciphertexts by the processor's own AES, many times as fast as by the kernels.

Concrete's generator gives AES-128 of 0, 1, 2, … under the seed, without the first byte. Masks are
public, and no secret is drawn here.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from cipherlearn.engines.kernels._wire import Words

__all__ = ["draw_masks"]

# Words that are drawn at a time and stay in cache.
_WORDS = 2**16


@lru_cache(maxsize=16)
def _counters(n: int) -> Words:
    counters = np.zeros((n, 2), dtype="<u8")
    counters[:, 0] = np.arange(n)
    return counters


def draw_masks(ciphertexts: Words, seed: Words, bodies: Words) -> None:
    """Fill ciphertexts with bodies and with consecutive masks drawn from one seed.

    Parameters
    ----------
    ciphertexts : ndarray of shape (n, n_words)
    seed : ndarray of shape (2,)
    bodies : ndarray of shape (n, n_body_words)

    Raises
    ------
    ImportError
        If cryptography is not installed.
    """
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    n_words = ciphertexts.shape[1] - bodies.shape[1]
    ciphertexts[:, n_words:] = bodies
    encrypt = Cipher(algorithms.AES(seed.tobytes()), modes.ECB()).encryptor().update
    # A block is two words.
    step = 2 * max(1, _WORDS // (2 * n_words))
    for start in range(0, len(ciphertexts), step):
        masks = ciphertexts[start : start + step, :n_words]
        blocks = _counters(masks.size // 2 + 1)
        if start:
            blocks = blocks + np.array([start * n_words // 2, 0], dtype=np.uint64)
        drawn = encrypt(blocks.tobytes())
        masks[:] = np.frombuffer(drawn, np.uint64, masks.size, offset=1).reshape(masks.shape)
