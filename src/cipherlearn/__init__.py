"""Sparse quantized neural networks that predict on encrypted data."""

from cipherlearn._budget import max_active_neurons
from cipherlearn._circuit import Circuit
from cipherlearn._classifier import NeuralNetClassifier
from cipherlearn._exceptions import (
    AccumulatorOverflowError,
    CipherlearnError,
    CompilationError,
    NotCompiledError,
)
from cipherlearn._module import SparseQuantNeuralNetImpl
from cipherlearn._program import IntegerProgram
from cipherlearn._regressor import NeuralNetRegressor
from cipherlearn._version import __version__

__all__ = [
    "AccumulatorOverflowError",
    "CipherlearnError",
    "Circuit",
    "CompilationError",
    "IntegerProgram",
    "NeuralNetClassifier",
    "NeuralNetRegressor",
    "NotCompiledError",
    "SparseQuantNeuralNetImpl",
    "__version__",
    "max_active_neurons",
]
