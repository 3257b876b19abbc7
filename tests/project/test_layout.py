"""The contracts of imports in pyproject.toml hold, and what breaks them is noticed."""

# The same with any engine.
# engine: concrete-python

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

importlinter = pytest.importorskip("importlinter")

ROOT = Path(__file__).parents[2]


def lint_imports(directory: Path) -> subprocess.CompletedProcess:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(directory / "src")}
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )


def test_what_breaks_a_contract_is_noticed(tmp_path):
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    whole = lint_imports(tmp_path)
    assert whole.returncode == 0, whole.stdout
    package = tmp_path / "src/cipherlearn"
    for name, line in {
        "program/_program.py": "import torch",
        # A local import is one, too.
        "deployment/_server.py": "def f():\n    from cipherlearn.deployment.keys import _key_file",
        "nn/_budget.py": "from cipherlearn.nn import _layers, _network",
        "circuit/_cost.py": "from cipherlearn.estimators import _base",
    }.items():
        with (package / name).open("a") as file:
            file.write(f"\n\n{line}\n")
    broken = lint_imports(tmp_path)
    assert broken.returncode != 0
    for contract in (
        "Imports go one way",
        "There are no circles, not even by local imports",
        "The program is NumPy and SciPy alone",
        "Ciphertexts need no training library",
        "A server has no way to a secret key",
    ):
        assert f"{contract} BROKEN" in broken.stdout
    assert "Engines are independent KEPT" in broken.stdout
