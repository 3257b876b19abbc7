"""Checks of the installed package, without this source tree and without any extra.

Run by ``check_package.py`` with the Python of an environment that holds the wheel.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import sysconfig
import time
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

# Seconds that importing the package may take.
LIMIT = 0.3

IMPORT = """
import sys, time
start = time.perf_counter()
import cipherlearn
print(time.perf_counter() - start, *{"torch", "sklearn", "matplotlib"} & set(sys.modules))
"""


def check_import() -> None:
    seconds = []
    for _ in range(5):
        time_taken, *heavy = subprocess.check_output([sys.executable, "-I", "-c", IMPORT]).split()
        assert not heavy, f"import cipherlearn imports {heavy}"
        seconds.append(float(time_taken))
    median = statistics.median(seconds)
    assert median < LIMIT, f"import cipherlearn takes {median:.3f} s, more than {LIMIT} s"
    print(f"import cipherlearn: {median:.3f} s")


def check_files() -> None:
    files = [str(file) for file in distribution("cipherlearn").files or ()]
    outside = [
        file
        for file in files
        if not file.startswith(("cipherlearn/", "cipherlearn-", "../../../bin/cipherlearn"))
    ]
    assert not outside, f"the wheel holds {outside}"
    assert "cipherlearn/py.typed" in files, "the wheel has no py.typed"
    package = Path(find_spec("cipherlearn").origin).parent
    site_packages = Path(sysconfig.get_path("purelib"))
    assert package == site_packages / "cipherlearn", f"cipherlearn was found in {package}"
    # skops and the like are extras. Without them everything here must do.
    assert find_spec("skops") is None, "an extra is installed"


def check_command() -> None:
    command = Path(sysconfig.get_path("scripts"), "cipherlearn")
    text = subprocess.check_output([command, "--help"], text=True)
    assert "serve" in text, text


def check_prediction() -> None:
    start = time.perf_counter()
    from cipherlearn import NeuralNetClassifier

    print(f"import of the estimators: {time.perf_counter() - start:.1f} s")
    from sklearn.datasets import load_iris

    X, y = load_iris(return_X_y=True)
    clf = NeuralNetClassifier(
        module__n_hidden_neurons=2,
        module__n_hidden_accum_bits=3,
        module__n_output_accum_bits=4,
        max_epochs=10,
        random_state=0,
    ).fit(X, y)
    clf.compile()
    encrypted, clear = clf.predict(X[::75], execute_in_fhe=True), clf.predict(X[::75])
    assert (encrypted == clear).all(), f"encrypted {encrypted}, clear {clear}"
    print(f"encrypted = clear: {len(clear)} of {len(clear)} rows")


if __name__ == "__main__":
    check_import()
    check_files()
    check_command()
    check_prediction()
