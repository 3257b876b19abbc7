"""Rows cut into the batches of a circuit, and their results put together."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cipherlearn._progress import progress_bar
from cipherlearn.program._program import IntegerProgram
from cipherlearn.program._values import IntArray

__all__ = ["RowBatches"]


class RowBatches:
    """Rows of codes, a batch at a time, as a circuit takes them. The last one is padded.

    Parameters
    ----------
    program : IntegerProgram
    codes : ndarray of shape (n_rows, n_codes)
    batch_size : int

    Raises
    ------
    ValueError
        If the shape is wrong or a code is outside the quantizer's range.

    Examples
    --------
    >>> import numpy as np
    >>> from cipherlearn import NeuralNetClassifier
    >>> from cipherlearn.circuit._row_batches import RowBatches
    >>> X = np.arange(5.0)[:, None]
    >>> program = NeuralNetClassifier(max_epochs=5).fit(X, X.ravel() > 2).program_
    >>> batches = RowBatches(program, program.quantize(X), batch_size=2)
    >>> len(batches), [len(codes) for codes in batches[2]]  # of both inputs
    (3, [2, 2])
    """

    def __init__(self, program: IntegerProgram, codes: IntArray, batch_size: int) -> None:
        self._program = program
        self._codes = program.quantizer.check_codes(codes)
        self._batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self._codes) // self._batch_size)

    def __getitem__(self, number: int) -> list[IntArray]:
        """Return the codes of each input of a batch, padded with zeros."""
        codes = self._codes[self._slice(number)]
        return self._program.split(np.pad(codes, ((0, self._batch_size - len(codes)), (0, 0))))

    def _slice(self, number: int) -> slice:
        return slice(number * self._batch_size, (number + 1) * self._batch_size)

    def collect(
        self, results: Iterable[tuple[int, IntArray]], title: str, verbose: bool | int
    ) -> IntArray:
        """Concatenate the sums of batches by their numbers, without padding."""
        accumulators = np.empty((len(self._codes), self._program.n_sums), dtype=np.int64)
        with progress_bar(len(self._codes), title, "row", verbose) as progress:
            for number, result in results:
                rows = accumulators[self._slice(number)]
                rows[:] = result[: len(rows)]
                progress.update(len(rows))
        return accumulators
