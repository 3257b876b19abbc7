"""Pictures of trained networks, as scikit-learn's Display objects.

Importing the package imports no matplotlib. Drawing does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cipherlearn._lazy import lazy_names

if TYPE_CHECKING:
    from cipherlearn.inspection._accumulator_display import AccumulatorDisplay
    from cipherlearn.inspection._circuit_display import CircuitDisplay
    from cipherlearn.inspection._history_display import TrainingHistoryDisplay
    from cipherlearn.inspection._latency_display import LatencyDisplay
    from cipherlearn.inspection._levels_display import IntegerLevelsDisplay
    from cipherlearn.inspection._network_display import NetworkDisplay
    from cipherlearn.inspection._weights_display import WeightBudgetDisplay

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
    "AccumulatorDisplay": "_accumulator_display",
    "CircuitDisplay": "_circuit_display",
    "IntegerLevelsDisplay": "_levels_display",
    "LatencyDisplay": "_latency_display",
    "NetworkDisplay": "_network_display",
    "TrainingHistoryDisplay": "_history_display",
    "WeightBudgetDisplay": "_weights_display",
}

__getattr__ = lazy_names(__name__, _MODULES)
