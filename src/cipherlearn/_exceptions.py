"""The exceptions and warnings that cipherlearn adds to Python's own.

This module does not import scikit-learn, since clients and servers need none. ``NotCompiledError``
extends an exception of scikit-learn, so it is defined in ``estimators._base``.
"""

import json

__all__ = [
    "AccumulatorOverflowError",
    "AccuracyLossWarning",
    "ArtefactError",
    "CipherlearnError",
    "CompilationError",
    "EngineNotFoundError",
    "MessageError",
    "ProgramFormatError",
    "RemoteError",
    "UnknownKeyError",
    "UnsupportedByEngineError",
    "UntrustedTypesError",
    "printable",
]


def printable(text: str) -> str:
    r"""Escape what would command a terminal, or reorder what it shows.

    Examples
    --------
    >>> from cipherlearn._exceptions import printable
    >>> printable("busy\x1b[2J")
    'busy\\u001b[2J'
    """
    return "".join(
        each if each.isprintable() or each in "\n\t" else json.dumps(each)[1:-1] for each in text
    )


class CipherlearnError(Exception):
    """Base of cipherlearn's own exceptions.

    Some quote what a stranger sent. Their text has no control characters.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class AccuracyLossWarning(UserWarning):
    """Quantization or pruning cost more than 2 points of a network's training score."""


class AccumulatorOverflowError(CipherlearnError, ValueError):
    """A neuron's sum needs more bits than ``n_accum_bits``."""


class CompilationError(CipherlearnError, ValueError):
    """The engine found no cryptographic parameters for the program."""


class EngineNotFoundError(CipherlearnError, ImportError):
    """No FHE compiler is installed."""


class UnsupportedByEngineError(CipherlearnError, NotImplementedError):
    """The installed FHE compiler lacks a feature that another one has."""


class ProgramFormatError(CipherlearnError, ValueError):
    """A file is not an integer program that this version can read."""


class ArtefactError(CipherlearnError, ValueError):
    """A file is not an artefact or key file for this version and model."""


class UntrustedTypesError(ArtefactError):
    """A file holds types that are not trusted.

    Parameters
    ----------
    what : str
        What the file is.
    types : list of str
        The types, as ``trusted`` takes them.
    """

    def __init__(self, what: str, types: list[str]) -> None:
        super().__init__(what, types)
        self.what, self.types = what, types

    def __str__(self) -> str:
        return printable(self.asking_for(f"trusted={self.types}"))

    def asking_for(self, remedy: str) -> str:
        """Return the message, with the remedy in the words of the caller."""
        return (
            f"{self.what} may hold scikit-learn's transformers that are known to be safe, and "
            f"types that are named as trusted. Got also {self.types}. Read what these do, and if "
            f"you trust them give {remedy}, or leave the step out."
        )


class MessageError(CipherlearnError, ValueError):
    """Bytes are damaged, or not a message for this model."""


class UnknownKeyError(CipherlearnError, LookupError):
    """The server does not have the evaluation keys that a ciphertext needs."""


class RemoteError(CipherlearnError, RuntimeError):
    """A server could not be reached, or refused a request."""
