"""Parameters of the estimators for a model that is fast, or accurate, on encrypted rows.

Each is a dict, for ``**``. What it leaves out keeps its default, and what you pass besides must not
be in it: ``{**presets.FAST, "module__n_hidden_neurons": 12}`` changes a value.

Examples
--------
>>> from cipherlearn import NeuralNetClassifier, presets
>>> clf = NeuralNetClassifier(**presets.FAST, random_state=0)
>>> clf.module__n_hidden_neurons
8
"""

from __future__ import annotations

from typing import Any

__all__ = ["ACCURATE", "FAST", "LINEAR"]

#: A linear model of the input codes, so additive in the features and components. No bootstrap.
LINEAR: dict[str, Any] = {"module__n_layers": 1}

#: 8 bootstraps of 4 bits at most.
FAST: dict[str, Any] = {
    "module__n_hidden_neurons": 8,
    "module__n_hidden_accum_bits": 4,
}

#: 40 bootstraps of 5 bits at most.
ACCURATE: dict[str, Any] = {
    "module__n_hidden_neurons": 40,
    "module__n_hidden_accum_bits": 5,
    "module__n_output_accum_bits": 8,
}
