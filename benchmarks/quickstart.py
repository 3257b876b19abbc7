"""Accuracy and latency of the default settings on scikit-learn's small data sets.

Prints, and with ``--output`` writes, a Markdown table: for each data set the accuracy of a float
MLP, of ``NeuralNetClassifier()`` in the clear and on encrypted rows, and what a row costs.

    python benchmarks/quickstart.py [--rows 20] [--seeds 3] [--output FILE]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from report import ENCRYPTING, environment, header, row
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cipherlearn import NeuralNetClassifier

DATASETS = {
    "iris": load_iris,
    "wine": load_wine,
    "breast cancer": load_breast_cancer,
    "digits": load_digits,
}
COLUMNS = (
    "data set",
    "float MLP",
    "cipherlearn, clear",
    "difference, points",
    "encrypted = clear",
    "bootstraps a row",
    "seconds a row",
    "keys, MB",
    "key generation, s",
)


def measure(load, n_rows: int, n_seeds: int) -> list[str]:
    X, y = load(return_X_y=True)
    float_scores, clear_scores = [], []
    for seed in range(n_seeds):
        X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=seed)
        mlp = make_pipeline(StandardScaler(), MLPClassifier(max_iter=1000, random_state=seed))
        model = make_pipeline(StandardScaler(), NeuralNetClassifier(random_state=seed))
        float_scores.append(mlp.fit(X_train, y_train).score(X_test, y_test))
        clear_scores.append(model.fit(X_train, y_train).score(X_test, y_test))

    circuit = model[-1].compile()
    start = time.perf_counter()
    circuit.keygen()
    keygen_seconds = time.perf_counter() - start
    model.predict(X_test[:1], execute_in_fhe=True)  # the first call unpacks the keys
    agree, seconds = 0, []
    for features in X_test[:n_rows, None]:
        start = time.perf_counter()
        encrypted = model.predict(features, execute_in_fhe=True)
        seconds.append(time.perf_counter() - start)
        agree += int(encrypted[0] == model.predict(features)[0])
    float_score, clear_score = np.mean(float_scores), np.mean(clear_scores)
    return [
        f"{100 * float_score:.1f} %",
        f"{100 * clear_score:.1f} %",
        f"{100 * (clear_score - float_score):+.1f}",
        f"{agree} of {len(seconds)}",
        f"{model[-1].program_.n_bootstraps}",
        f"{np.median(seconds):.2f}",
        f"{len(circuit.evaluation_keys()) / 1e6:.0f}",
        f"{keygen_seconds:.1f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20, help="encrypted rows per data set")
    parser.add_argument("--seeds", type=int, default=3, help="75/25 splits to average over")
    parser.add_argument("--output", help="Markdown file to write")
    arguments = parser.parse_args()

    lines = [
        f"{environment(*ENCRYPTING)} Error probability 2^-40 per bootstrap. Accuracies are means "
        f"over {arguments.seeds} splits; seconds are medians over {arguments.rows} rows.",
        "",
        *header(COLUMNS),
    ]
    print("\n".join(lines))
    for name, load in DATASETS.items():
        lines.append(row([name, *measure(load, arguments.rows, arguments.seeds)]))
        print(lines[-1], flush=True)
    if arguments.output:
        with open(arguments.output, "w") as file:
            file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
