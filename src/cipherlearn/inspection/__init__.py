"""Pictures of trained networks, as scikit-learn's Display objects.

Importing the package imports no matplotlib. Drawing does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cipherlearn._lazy import lazy_names

if TYPE_CHECKING:
    from cipherlearn.inspection._accumulators import AccumulatorDisplay
    from cipherlearn.inspection._circuit import CircuitDisplay
    from cipherlearn.inspection._history import TrainingHistoryDisplay
    from cipherlearn.inspection._latency import LatencyDisplay
    from cipherlearn.inspection._levels import IntegerLevelsDisplay
    from cipherlearn.inspection._network import NetworkDisplay
    from cipherlearn.inspection._weights import WeightBudgetDisplay

__all__ = [
    "AccumulatorDisplay",
    "CircuitDisplay",
    "IntegerLevelsDisplay",
    "LatencyDisplay",
    "NetworkDisplay",
    "TrainingHistoryDisplay",
    "WeightBudgetDisplay",
]

_MODULES = {
    "AccumulatorDisplay": "_accumulators",
    "CircuitDisplay": "_circuit",
    "IntegerLevelsDisplay": "_levels",
    "LatencyDisplay": "_latency",
    "NetworkDisplay": "_network",
    "TrainingHistoryDisplay": "_history",
    "WeightBudgetDisplay": "_weights",
}

__getattr__ = lazy_names(__name__, _MODULES)
