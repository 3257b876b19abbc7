"""Time of ``fit``, alone and beside another, and of clear prediction, against their peers.

    python benchmarks/training_speed.py [--epochs 100] [--repeats 5] [--concrete-ml PYTHON]

Prints three Markdown tables, against plain skorch, scikit-learn and Concrete-ML. All networks have
one hidden layer of 32 neurons and train with Adam on batches of 32 rows for the same number of
epochs, on one thread but for two fits at once, which choose. Times are medians, of runs in turn.
``--concrete-ml`` names the Python of a virtual environment that has Concrete-ML.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import skorch
import torch
from report import environment, header
from sklearn.datasets import load_breast_cancer, load_digits, make_classification
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from cipherlearn import NeuralNetClassifier

WIDTH = 32
DATASETS = {"breast cancer": load_breast_cancer, "digits": load_digits}


class FloatNetwork(torch.nn.Sequential):
    """The same layers, in plain torch."""

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__(
            torch.nn.Linear(n_features, WIDTH), torch.nn.ReLU(), torch.nn.Linear(WIDTH, n_classes)
        )


def plain_skorch(X, y, n_epochs: int):
    return skorch.NeuralNetClassifier(
        FloatNetwork,
        module__n_features=X.shape[1],
        module__n_classes=len(np.unique(y)),
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.01,
        batch_size=32,
        max_epochs=n_epochs,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    ).fit(X, y)


def ours(X, y, n_epochs: int):
    return NeuralNetClassifier(
        module__n_hidden_neurons=WIDTH, max_epochs=n_epochs, random_state=0
    ).fit(X, y)


def seconds(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def concrete_ml(python: str, X, y, n_epochs: int) -> float:
    """Seconds of Concrete-ML's fit, measured inside its own process."""
    path = Path(__file__).with_name("concrete_ml_fit.py")
    data = json.dumps({"X": X.tolist(), "y": y.tolist(), "epochs": n_epochs, "width": WIDTH})
    result = subprocess.run(
        [python, str(path)], input=data, capture_output=True, text=True, check=True
    )
    return float(result.stdout.splitlines()[-1])


# A process that fits the default network when told to, and says how long it took.
_FIT = """
import sys, time
from sklearn.datasets import load_breast_cancer
from cipherlearn import NeuralNetClassifier
X, y = load_breast_cancer(return_X_y=True)
NeuralNetClassifier(max_epochs=2).fit(X, y)
print("ready", flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    NeuralNetClassifier(random_state=0).fit(X, y)
    print(time.perf_counter() - start, flush=True)
"""


def fits_at_once(n_repeats: int) -> tuple[float, float]:
    """Median seconds of a fit alone, and of the slower of one per core at once, in turns."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _FIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(os.cpu_count() or 1)
    ]
    for process in processes:
        process.stdout.readline()

    def slowest(chosen: list[subprocess.Popen]) -> float:
        for process in chosen:
            process.stdin.write("\n")
            process.stdin.flush()
        return max(float(process.stdout.readline()) for process in chosen)

    runs = [(slowest(processes[:1]), slowest(processes)) for _ in range(n_repeats)]
    for process in processes:
        process.communicate()
    alone, together = zip(*runs, strict=True)
    return statistics.median(alone), statistics.median(together)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=100_000, help="rows to predict")
    parser.add_argument("--concrete-ml", metavar="PYTHON", help="Python that has Concrete-ML")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)

    packages = ("torch", "scikit-learn", "skorch", "brevitas", "numpy")
    print(
        f"{environment(*packages)} {arguments.epochs} epochs; medians of {arguments.repeats} "
        "runs.\n"
    )
    columns = ["fit", "cipherlearn, s", "plain skorch, s", "ratio", "Concrete-ML, s", "ratio"]
    print(*header(columns), sep="\n")
    for name, load in DATASETS.items():
        X, y = load(return_X_y=True)
        X = StandardScaler().fit_transform(X).astype(np.float32)
        times: dict[str, list[float]] = {"ours": [], "skorch": [], "peer": []}
        for function in (ours, plain_skorch):
            function(X, y, 2)  # imports and caches
        for _ in range(arguments.repeats):
            times["ours"].append(seconds(ours, X, y, arguments.epochs))
            times["skorch"].append(seconds(plain_skorch, X, y, arguments.epochs))
            if arguments.concrete_ml:
                peer = concrete_ml(arguments.concrete_ml, X, y, arguments.epochs)
                times["peer"].append(peer)
        median = {key: statistics.median(values) for key, values in times.items() if values}
        peer = "– | –"
        if "peer" in median:
            peer = f"{median['peer']:.2f} | {median['ours'] / median['peer']:.2f}"
        print(
            f"| {name} | {median['ours']:.2f} | {median['skorch']:.2f} | "
            f"{median['ours'] / median['skorch']:.2f} | {peer} |",
            flush=True,
        )

    columns = ["predict", "features", "cipherlearn, s", "MLPClassifier, s", "ratio"]
    print("", *header(columns), sep="\n")
    for n_features in (10, 30, 64):
        X, y = make_classification(
            arguments.rows, n_features, n_informative=8, n_classes=4, random_state=0
        )
        models = {
            "ours": NeuralNetClassifier(max_epochs=5, random_state=0).fit(X[:2000], y[:2000]),
            "float": MLPClassifier((WIDTH,), max_iter=5, random_state=0).fit(X[:2000], y[:2000]),
        }
        predicting: dict[str, list[float]] = {key: [] for key in models}
        for _ in range(arguments.repeats):
            for key, model in models.items():
                predicting[key].append(seconds(model.predict, X))
        own, other = (statistics.median(predicting[key]) for key in models)
        times_and_ratio = f"{own:.3f} | {other:.3f} | {own / other:.2f}"
        print(f"| {arguments.rows} rows | {n_features} | {times_and_ratio} |", flush=True)

    alone, together = fits_at_once(arguments.repeats)
    columns = ["default fits", "alone, s", "one per core at once, s", "ratio"]
    print("", *header(columns), sep="\n")
    print(f"| breast cancer | {alone:.2f} | {together:.2f} | {together / alone:.2f} |")


if __name__ == "__main__":
    main()
