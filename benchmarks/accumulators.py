"""Accuracy against accumulator bits, for both rules that keep a sum within them.

    pip install matplotlib
    python benchmarks/accumulators.py --output results [--splits 3] [--jobs 2]

``budget="omega"`` counts weights as if all were as large as can be (multiplier 1, which is the
published rule). ``budget="l1"`` bounds what the sum needs. Prints a Markdown table and draws a
plot. Each network has 32 hidden neurons, 3-bit weights and 2-bit codes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from report import environment, header, row
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.model_selection import train_test_split

from cipherlearn import NeuralNetClassifier

DATASETS = {"wine": load_wine, "breast cancer": load_breast_cancer, "digits": load_digits}
BUDGETS = ("omega", "l1")
BITS = (5, 6, 7, 8)


def accuracy(dataset: str, budget: str, n_accum_bits: int, seed: int) -> float:
    X, y = DATASETS[dataset](return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=seed)
    clf = NeuralNetClassifier(
        module__budget=budget,
        module__n_accum_bits=n_accum_bits,
        module__n_hidden_accum_bits=None,
        module__n_hidden_neurons_multiplier=1.0,
        random_state=seed,
    ).fit(X_train, y_train)
    assert max(layer.n_accum_bits for layer in clf.program_.layers) <= n_accum_bits
    return clf.score(X_test, y_test)


def plot(results: dict, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(DATASETS), figsize=(9, 3.2), layout="constrained")
    for panel, dataset in zip(axes, DATASETS, strict=True):
        for budget in BUDGETS:
            panel.plot(BITS, [results[dataset, budget, n] for n in BITS], "o-", label=budget)
        panel.set_title(dataset)
        panel.set_xlabel("accumulator bits")
        panel.set_xticks(BITS)
        panel.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy, %")
    axes[0].legend(title="budget")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("."), help="folder to write to")
    parser.add_argument("--splits", type=int, default=3, help="75/25 splits to average over")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    arguments = parser.parse_args()
    keys = [(dataset, budget, n) for dataset in DATASETS for budget in BUDGETS for n in BITS]
    scores = Parallel(arguments.jobs)(
        delayed(accuracy)(*key, seed) for key in keys for seed in range(arguments.splits)
    )
    means = 100 * np.reshape(scores, (len(keys), arguments.splits)).mean(axis=1)
    results = dict(zip(keys, means.tolist(), strict=True))

    lines = [
        f"{environment('torch', 'scikit-learn', 'brevitas', 'numpy')} Accuracy in %, means of "
        f"{arguments.splits} splits.",
        "",
        *header(["data set", "budget", *(f"{n} bits" for n in BITS)]),
    ]
    for dataset in DATASETS:
        for budget in BUDGETS:
            cells = (f"{results[dataset, budget, n]:.1f}" for n in BITS)
            lines.append(row([dataset, budget, *cells]))
    text = "\n".join(lines) + "\n"
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "accumulators.md").write_text(text)
    plot(results, arguments.output / "accumulators.png")
    print(text)


if __name__ == "__main__":
    main()
