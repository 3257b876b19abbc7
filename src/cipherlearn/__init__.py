"""Sparse quantized neural networks that predict on encrypted data."""

from cipherlearn._budget import max_active_neurons
from cipherlearn._circuit import Circuit
from cipherlearn._classifier import NeuralNetClassifier
from cipherlearn._cost import CostEstimate
from cipherlearn._exceptions import (
    AccumulatorOverflowError,
    CipherlearnError,
    CompilationError,
    NotCompiledError,
    ProgramFormatError,
)
from cipherlearn._module import SparseQuantNeuralNetImpl
from cipherlearn._program import IntegerProgram
from cipherlearn._program_io import load_program, save_program
from cipherlearn._regressor import NeuralNetRegressor
from cipherlearn._report import Report
from cipherlearn._search import EncryptedSearchCV
from cipherlearn._version import __version__

__all__ = [
    "AccumulatorOverflowError",
    "CipherlearnError",
    "Circuit",
    "CompilationError",
    "CostEstimate",
    "EncryptedSearchCV",
    "IntegerProgram",
    "NeuralNetClassifier",
    "NeuralNetRegressor",
    "NotCompiledError",
    "ProgramFormatError",
    "Report",
    "SparseQuantNeuralNetImpl",
    "__version__",
    "load_program",
    "max_active_neurons",
    "save_program",
]
