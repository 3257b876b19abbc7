"""Sparse quantized neural networks that predict on encrypted data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cipherlearn import presets
from cipherlearn._lazy import lazy_names
from cipherlearn._version import __version__

if TYPE_CHECKING:
    from cipherlearn._exceptions import (
        AccumulatorOverflowError,
        AccuracyLossWarning,
        CipherlearnError,
        CompilationError,
        EngineNotFoundError,
        ProgramFormatError,
        UnsupportedByEngineError,
    )
    from cipherlearn.circuit._circuit import Circuit
    from cipherlearn.circuit._cost import CostEstimate
    from cipherlearn.estimators._base import NotCompiledError
    from cipherlearn.estimators._classifier import NeuralNetClassifier
    from cipherlearn.estimators._conversion import from_sklearn, from_torch
    from cipherlearn.estimators._regressor import NeuralNetRegressor
    from cipherlearn.inspection._report import Report
    from cipherlearn.lowering._lower import lower
    from cipherlearn.model_selection._scoring import make_fhe_scorer
    from cipherlearn.model_selection._search import EncryptedSearchCV
    from cipherlearn.nn._budget import max_active_neurons
    from cipherlearn.nn._network import SparseQuantNeuralNetImpl
    from cipherlearn.program._file import load_program, save_program
    from cipherlearn.program._program import IntegerProgram

__all__ = [
    "AccumulatorOverflowError",
    "AccuracyLossWarning",
    "CipherlearnError",
    "Circuit",
    "CompilationError",
    "CostEstimate",
    "EncryptedSearchCV",
    "EngineNotFoundError",
    "IntegerProgram",
    "NeuralNetClassifier",
    "NeuralNetRegressor",
    "NotCompiledError",
    "ProgramFormatError",
    "Report",
    "SparseQuantNeuralNetImpl",
    "UnsupportedByEngineError",
    "__version__",
    "from_sklearn",
    "from_torch",
    "load_program",
    "lower",
    "make_fhe_scorer",
    "max_active_neurons",
    "presets",
    "save_program",
]

# A client or a server imports neither torch nor scikit-learn, so names are imported when used.
_MODULES = {
    "AccumulatorOverflowError": "_exceptions",
    "AccuracyLossWarning": "_exceptions",
    "CipherlearnError": "_exceptions",
    "Circuit": "circuit._circuit",
    "CompilationError": "_exceptions",
    "CostEstimate": "circuit._cost",
    "EncryptedSearchCV": "model_selection._search",
    "EngineNotFoundError": "_exceptions",
    "IntegerProgram": "program._program",
    "NeuralNetClassifier": "estimators._classifier",
    "NeuralNetRegressor": "estimators._regressor",
    "NotCompiledError": "estimators._base",
    "ProgramFormatError": "_exceptions",
    "Report": "inspection._report",
    "SparseQuantNeuralNetImpl": "nn._network",
    "UnsupportedByEngineError": "_exceptions",
    "from_sklearn": "estimators._conversion",
    "from_torch": "estimators._conversion",
    "load_program": "program._file",
    "lower": "lowering._lower",
    "make_fhe_scorer": "model_selection._scoring",
    "max_active_neurons": "nn._budget",
    "save_program": "program._file",
}

__getattr__ = lazy_names(__name__, _MODULES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
