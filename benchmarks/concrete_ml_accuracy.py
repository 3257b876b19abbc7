"""Cross-validate Concrete-ML's networks. ``accuracy.py`` runs it in Concrete-ML's environment."""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from concrete.ml.sklearn import NeuralNetClassifier, NeuralNetRegressor

# Its defaults with the 3 layers of its documentation, and 2 layers as narrow as ours with enough
# epochs.
SETTINGS = {
    "Concrete-ML, 3 layers, default": {"module__n_layers": 3},
    "Concrete-ML, 2 layers, 32 neurons": {
        "module__n_layers": 2,
        "module__n_w_bits": 3,
        "module__n_a_bits": 3,
        "max_epochs": 100,
        "batch_size": 32,
        "lr": 0.01,
    },
}


def build(kind: str, n_features: int, settings: dict):
    settings = {"verbose": False, **settings}
    if settings["module__n_layers"] == 2:
        # The width is a multiple of the number of features there.
        settings["module__n_hidden_neurons_multiplier"] = 32 / n_features
    if kind == "classification":
        return NeuralNetClassifier(**settings)
    return NeuralNetRegressor(**settings)


def main(kind: str, directory: Path) -> None:
    results = {}
    for name, settings in SETTINGS.items():
        scores, bootstraps, start = [], [], time.perf_counter()
        for path in sorted(directory.glob("fold*.npz")):
            fold = np.load(path)
            torch.manual_seed(0)
            X, X_test = (fold[key].astype(np.float32) for key in ("X_train", "X_test"))
            y, y_test = fold["y_train"], fold["y_test"]
            if kind == "regression":
                y, y_test = (np.atleast_2d(a.T).T.astype(np.float32) for a in (y, y_test))
                mean, scale = y.mean(axis=0), y.std(axis=0)
                model = build(kind, X.shape[1], settings).fit(X, (y - mean) / scale)
                error = (model.predict(X_test).reshape(y_test.shape) * scale + mean - y_test) ** 2
                variance = ((y_test - y_test.mean(axis=0)) ** 2).sum(axis=0)
                scores.append(float((1 - error.sum(axis=0) / variance).mean()))
            else:
                model = build(kind, X.shape[1], settings).fit(X, y)
                scores.append(float((model.predict(X_test) == y_test).mean()))
            layers = [m for m in model.module_.modules() if hasattr(m, "quant_weight")]
            # At least one lookup for each hidden neuron.
            bootstraps.append(sum(layer.out_features for layer in layers[:-1]))
        results[name] = {
            "scores": scores,
            "bootstraps": float(np.mean(bootstraps)),
            "fit_seconds": (time.perf_counter() - start) / len(scores),
        }
    print(json.dumps(results))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1], Path(sys.argv[2]))
