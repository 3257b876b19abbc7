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


@lru_cache(maxsize=4)
def _counters(first: int, n: int) -> bytes:
    counters = np.zeros((n, 2), dtype="<u8")
    counters[:, 0] = np.arange(first, first + n)
    return counters.tobytes()


def draw_masks(ciphertexts: Words, seeds: Words, bodies: Words) -> None:
    """Fill ciphertexts with bodies and with masks drawn from seeds.

    Parameters
    ----------
    ciphertexts : ndarray of shape (n, n_words)
    seeds : ndarray of shape (n_seeds, 2)
        Each gives the masks of the next ``n / n_seeds`` ciphertexts.
    bodies : ndarray of shape (n, n_body_words)

    Raises
    ------
    ImportError
        If cryptography is not installed.
    """
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    n_words = ciphertexts.shape[1] - bodies.shape[1]
    ciphertexts[:, n_words:] = bodies
    per_seed, mode = len(ciphertexts) // len(seeds), modes.ECB()
    # A block is two words.
    step = 2 * max(1, _WORDS // (2 * n_words))
    for i, seed in enumerate(seeds):
        encrypt = Cipher(algorithms.AES(seed.tobytes()), mode).encryptor().update
        group = ciphertexts[i * per_seed : (i + 1) * per_seed, :n_words]
        for start in range(0, per_seed, step):
            masks = group[start : start + step]
            drawn = encrypt(_counters(start * n_words // 2, masks.size // 2 + 1))
            masks[:] = np.frombuffer(drawn, np.uint64, masks.size, offset=1).reshape(masks.shape)
