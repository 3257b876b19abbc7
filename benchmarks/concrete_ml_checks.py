"""Inputs that Concrete-ML's estimators accept and checks that they pass, beside ours.

    python benchmarks/concrete_ml_checks.py [--concrete-ml PYTHON] [--output benchmarks/results]

The questions that a user of scikit-learn asks first: string labels, DataFrames, cloning, pickling,
and how many of scikit-learn's own estimator checks pass. The flag names the Python of a virtual
environment that has Concrete-ML. This file runs itself there, with the scikit-learn that is
installed there. Writes ``concrete_ml_checks.md``.
"""

from __future__ import annotations

import argparse
import collections
import importlib.metadata
import inspect
import io
import json
import pickle
import platform
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.utils import estimator_checks

PACKAGES = ("cipherlearn", "concrete-ml", "concrete-python", "scikit-learn", "skorch", "numpy")


def make(kind: str, library: str):
    """Build a small, silent network of either library."""
    if library == "cipherlearn":
        import cipherlearn as module

        settings = {"max_epochs": 15}  # as tests/estimators/test_sklearn.py
    else:
        import concrete.ml.sklearn as module

        # More epochs than its default, so that no check fails for want of training.
        settings = {"module__n_layers": 2, "max_epochs": 50, "verbose": 0}
    return getattr(module, f"NeuralNet{kind}")(**settings)


def attempt(task) -> str:
    """Say "yes", or the first line of what it raised."""
    try:
        task()
    except Exception as error:
        lines = str(error).splitlines() or [""]
        return f"{type(error).__name__}: {lines[0][:100]}"
    return "yes"


def compiled(estimator, X):
    needs_data = "X" in inspect.signature(type(estimator).compile).parameters
    estimator.compile(X) if needs_data else estimator.compile()
    return estimator


def answers(library: str) -> dict[str, str]:
    """Do what users of scikit-learn do, and say what happened."""
    X, y = load_iris(return_X_y=True, as_frame=True)
    labels = np.array(["setosa", "versicolor", "virginica"])[y]
    values, targets = X.to_numpy(dtype=np.float32), y.to_numpy()
    network = make("Classifier", library)
    fitted = clone(network).fit(values, targets)

    def refit_after_pickle(estimator):
        copied = pickle.loads(pickle.dumps(estimator))
        assert (copied.predict(values) == estimator.predict(values)).all()

    def search():
        GridSearchCV(network, {"lr": [0.01, 0.02]}, cv=2, error_score="raise").fit(values, targets)

    def weights():
        clone(network).fit(values, targets, sample_weight=np.ones(len(targets)))

    def repeatable():
        first, second = (
            clone(network).set_params(random_state=0).fit(values, targets) for _ in range(2)
        )
        assert (first.predict_proba(values) == second.predict_proba(values)).all(), "not equal"

    def own_format():
        if library == "cipherlearn":
            import cipherlearn

            file = io.BytesIO()
            cipherlearn.save_program(fitted.program_, file)
            copied = cipherlearn.load_program(file)
            assert (copied(values) == fitted.program_(values)).all()
        else:
            from concrete.ml.common.serialization.loaders import loads

            saved = clone(network).set_params(callbacks="disable").fit(values, targets)
            copied = loads(saved.dumps())
            assert (copied.predict(values) == saved.predict(values)).all()

    return {
        "fit a DataFrame": attempt(lambda: clone(network).fit(X, targets)),
        "fit string labels": attempt(lambda: clone(network).fit(values, labels)),
        "fit integer features": attempt(lambda: clone(network).fit((10 * values).astype(int), y)),
        "fit sample weights": attempt(weights),
        "random_state repeats a fit": attempt(repeatable),
        "GridSearchCV": attempt(search),
        "pickle a fitted network": attempt(lambda: refit_after_pickle(fitted)),
        "pickle a compiled network": attempt(
            lambda: refit_after_pickle(compiled(clone(network).fit(values, targets), values))
        ),
        "save and load in a format of its own": attempt(own_format),
    }


def count_checks(estimator) -> dict[str, object]:
    """Run scikit-learn's checks, each on a network of its own."""
    counts, failed, skipped = collections.Counter(), [], []
    if hasattr(estimator_checks, "estimator_checks_generator"):
        checks = estimator_checks.estimator_checks_generator(estimator)
    else:  # scikit-learn below 1.6
        checks = estimator_checks.check_estimator(estimator, generate_only=True)
    for instance, check in checks:
        name = getattr(check, "func", check).__name__
        torch.manual_seed(0)  # Concrete-ML has no seed of its own
        try:
            check(instance)
            counts["passed"] += 1
        except estimator_checks.SkipTest:
            counts["skipped"] += 1
            skipped.append(name)
        except Exception as error:
            counts["failed"] += 1
            failed.append(f"{name} ({type(error).__name__})")
    return {**counts, "which": sorted(set(failed)), "unavailable": sorted(set(skipped))}


def measure(library: str) -> dict[str, object]:
    warnings.simplefilter("ignore")
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if library == "cipherlearn":
        import cipherlearn

        versions["cipherlearn"] = cipherlearn.__version__
    return {
        "versions": f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version}" for name, version in versions.items()),
        "answers": answers(library),
        "checks": {kind: count_checks(make(kind, library)) for kind in ("Classifier", "Regressor")},
    }


def table(results: dict[str, dict]) -> str:
    libraries = list(results)
    lines = [f"{library}: {result['versions']}.\n" for library, result in results.items()]
    lines += ["| | " + " | ".join(libraries) + " |", "| --- |" + " --- |" * len(libraries)]
    for question in results[libraries[0]]["answers"]:
        cells = [results[library]["answers"][question] for library in libraries]
        lines.append(f"| {question} | " + " | ".join(cells) + " |")
    for kind in ("Classifier", "Regressor"):
        cells = []
        for library in libraries:
            counts = results[library]["checks"][kind]
            n_run = sum(counts.get(key, 0) for key in ("passed", "failed", "skipped"))
            skipped = f", {counts['skipped']} skipped" if "skipped" in counts else ""
            cells.append(f"{counts.get('passed', 0)} of {n_run} passed{skipped}")
        lines.append(f"| scikit-learn's checks of NeuralNet{kind} | " + " | ".join(cells) + " |")
    for library in libraries:
        for kind in ("Classifier", "Regressor"):
            failed = results[library]["checks"][kind]["which"]
            if failed:
                lines.append(f"\n{library}, NeuralNet{kind}, failed: {', '.join(failed)}.")
            skipped = results[library]["checks"][kind]["unavailable"]
            if skipped:
                lines.append(f"\n{library}, NeuralNet{kind}, skipped: {', '.join(skipped)}.")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--concrete-ml", metavar="PYTHON")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--library", choices=("cipherlearn", "Concrete-ML"))
    arguments = parser.parse_args()
    if arguments.library:
        print(json.dumps(measure(arguments.library)))
        return
    results = {}
    for library, python in {
        "cipherlearn": sys.executable,
        "Concrete-ML": arguments.concrete_ml,
    }.items():
        if python:
            command = [python, __file__, "--library", library]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            results[library] = json.loads(done.stdout.splitlines()[-1])
    text = table(results)
    print(text)
    if arguments.output:
        (arguments.output / "concrete_ml_checks.md").write_text(text)


if __name__ == "__main__":
    main()
