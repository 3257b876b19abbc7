"""Time one fit of Concrete-ML. ``training_speed.py`` runs it in Concrete-ML's environment."""

from __future__ import annotations

import json
import sys
import time
import warnings

import numpy as np
import torch
from concrete.ml.sklearn import NeuralNetClassifier


def main() -> None:
    task = json.load(sys.stdin)
    X, y = np.array(task["X"], dtype=np.float32), np.array(task["y"])

    def fit(n_epochs: int) -> None:
        NeuralNetClassifier(
            module__n_layers=2,
            module__n_w_bits=3,
            module__n_a_bits=2,
            module__n_hidden_neurons_multiplier=task["width"] / X.shape[1],
            optimizer=torch.optim.Adam,
            lr=0.01,
            batch_size=32,
            max_epochs=n_epochs,
            verbose=False,
        ).fit(X, y)

    fit(2)  # imports and caches
    start = time.perf_counter()
    fit(task["epochs"])
    print(time.perf_counter() - start)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    main()
