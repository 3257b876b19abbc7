"""Steps of an evaluation, with everything encoded: one for each node of a program."""

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
        Values side by side.
    weights : ndarray of shape (n_neurons, n_inputs), int64
    constant : ndarray of shape (n_neurons,), uint64
        Encoded.
    """

    reads: tuple[int, ...]
    weights: IntArray
    constant: Words

    @cached_property
    def sparse_weights(self) -> csr_array:
        """Weights modulo 2**64."""
        # A client never comes here, and imports faster without.
        from scipy.sparse import csr_array

        return csr_array(self.weights.astype(np.uint64))


@dataclass(frozen=True)
class ConstantStep:
    """Ciphertexts of what is the same for every input. The compiler looks none of it up.

    Parameters
    ----------
    dimension : int
        Of the key that they would be under.
    bodies : ndarray of shape (n_neurons,), uint64
        Encoded.
    """

    dimension: int
    bodies: Words


@dataclass(frozen=True)
class Extraction:
    """The removal of a sum's last bits, each by a keyswitch and a bootstrap of its own.

    Parameters
    ----------
    n_bits, n_removed : int
        Bits of the sum, and those of them that are removed.
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
        Its value.
    shift : int
        Bits that ciphertexts are moved to the left before.
    offset : int
        Added to bodies then.
    extraction : Extraction or None
        Follows, if bits are removed exactly.
    keyswitch, bootstrap : int
        Positions of the keys among the parameters' own.
    polynomials : ndarray of shape (n_neurons, polynomial_size), uint64
        Tables, encoded.
    convert : int or None
        Position of the keyswitch key, if any, that takes results to the key of those that they
        are added to.
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
