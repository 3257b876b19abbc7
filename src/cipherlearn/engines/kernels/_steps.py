"""Steps of an evaluation, one for each node of a program, with encoded constants and tables."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from cipherlearn.engines.kernels._wire import Words
from cipherlearn.program._values import IntArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["ConstantStep", "Extraction", "LookupStep", "Step", "SumStep"]


@dataclass(frozen=True)
class SumStep:
    """Integer matrix product of ciphertexts, plus a clear constant.

    Parameters
    ----------
    reads : tuple of int
        Numbers of the values that are concatenated and read.
    weights : ndarray of shape (n_neurons, n_inputs), int64
    constant : ndarray of shape (n_neurons,), uint64
        Encoded as bodies of ciphertexts.
    """

    reads: tuple[int, ...]
    weights: IntArray
    constant: Words

    @cached_property
    def sparse_weights(self) -> csr_array:
        """Sparse weights modulo 2**64."""
        # A client never comes here, and imports faster without.
        from scipy.sparse import csr_array

        return csr_array(self.weights.astype(np.uint64))


@dataclass(frozen=True)
class ConstantStep:
    """Trivial ciphertexts of values that are the same for every input.

    Parameters
    ----------
    dimension : int
        Dimension of the key of ciphertexts that they are added to.
    bodies : ndarray of shape (n_neurons,), uint64
        Encoded values.
    """

    dimension: int
    bodies: Words


@dataclass(frozen=True)
class Extraction:
    """Removal of a sum's least significant bits by a keyswitch and a bootstrap each.

    Parameters
    ----------
    n_bits, n_removed : int
        Bits of the sum, and how many of them are removed.
    keyswitch, bootstrap, convert : int
        As for :class:`LookupStep`.
    """

    n_bits: int
    n_removed: int
    keyswitch: int
    bootstrap: int
    convert: int | None


@dataclass(frozen=True)
class LookupStep:
    """A keyswitch and a bootstrap of every ciphertext.

    Parameters
    ----------
    reads : int
        Number of the value that is looked up.
    shift : int
        Bits by which ciphertexts are first shifted to the left.
    offset : int
        Number that is then added to their bodies.
    extraction : Extraction or None
        Exact removal of bits, which follows if there is any.
    keyswitch, bootstrap : int
        Positions of the keys among those of the parameters.
    polynomials : ndarray of shape (n_neurons, polynomial_size), uint64
        Encoded tables.
    convert : int or None
        Position of the keyswitch key that takes results to the key of the ciphertexts that they
        are added to. ``None`` if it is the same key.
    """

    reads: int
    shift: int
    offset: int
    extraction: Extraction | None
    keyswitch: int
    bootstrap: int
    polynomials: Words
    convert: int | None


Step = ConstantStep | LookupStep | SumStep
