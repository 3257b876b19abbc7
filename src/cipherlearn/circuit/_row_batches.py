"""Rows cut into the batches of a circuit, and their results put together."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cipherlearn._progress import progress_bar
from cipherlearn.program._values import IntArray

__all__ = ["RowBatches"]


class RowBatches:
    """Rows of codes, a batch at a time. The last may have fewer.

    Parameters
    ----------
    codes : ndarray of shape (n_rows, n_codes)
    batch_size : int

    Examples
    --------
    >>> import numpy as np
    >>> from cipherlearn.circuit._row_batches import RowBatches
    >>> batches = RowBatches(np.arange(5)[:, None], batch_size=2)
    >>> len(batches), batches[2].tolist()
    (3, [[4]])
    """

    def __init__(self, codes: IntArray, batch_size: int) -> None:
        self._codes = codes
        self._batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self._codes) // self._batch_size)

    def __getitem__(self, number: int) -> IntArray:
        return self._codes[self._slice(number)]

    def _slice(self, number: int) -> slice:
        return slice(number * self._batch_size, (number + 1) * self._batch_size)

    def collect(
        self,
        results: Iterable[tuple[int, IntArray]],
        n_sums: int,
        title: str,
        verbose: bool | int,
    ) -> IntArray:
        """Put results of batches, which are padded, in the order of their numbers."""
        accumulators = np.empty((len(self._codes), n_sums), dtype=np.int64)
        with progress_bar(len(self._codes), title, "row", verbose) as progress:
            for number, result in results:
                rows = accumulators[self._slice(number)]
                rows[:] = result[: len(rows)]
                progress.update(len(rows))
        return accumulators
