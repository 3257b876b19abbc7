"""The exceptions that cipherlearn adds to scikit-learn's and Python's own."""

from sklearn.exceptions import NotFittedError

__all__ = [
    "AccumulatorOverflowError",
    "CipherlearnError",
    "CompilationError",
    "NotCompiledError",
    "ProgramFormatError",
]


class CipherlearnError(Exception):
    """Base of cipherlearn's own exceptions."""


class NotCompiledError(CipherlearnError, NotFittedError):
    """Encrypted prediction was asked of an estimator before ``compile()``."""


class AccumulatorOverflowError(CipherlearnError, ValueError):
    """A neuron's sum needs more bits than ``n_accum_bits``."""


class CompilationError(CipherlearnError, ValueError):
    """The engine found no cryptographic parameters for the program."""


class ProgramFormatError(CipherlearnError, ValueError):
    """A file is not an integer program that this version can read."""
