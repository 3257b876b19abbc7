"""The contracts of imports hold, files and classes are short, and what breaks that is noticed."""

# The same with any engine.
# engine: concrete-python

import ast
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


def too_long(directory: Path) -> list[str]:
    """Name files of more than 400 lines, and classes of more than 300."""
    found = []
    for path in sorted(directory.rglob("*.py")):
        code = path.read_text("utf-8")
        lengths = {path.name: (len(code.splitlines()), 400)}
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ClassDef):
                assert node.end_lineno is not None
                lengths[node.name] = (node.end_lineno - node.lineno + 1, 300)
        found += [
            f"{path.relative_to(directory)}: {name} has {n_lines} lines, more than {limit}"
            for name, (n_lines, limit) in lengths.items()
            if n_lines > limit
        ]
    return found


PACKAGE = ROOT / "src/cipherlearn"
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


@pytest.mark.parametrize(
    "folder",
    [
        *(pytest.param(PACKAGE / r, id=r) for r in ROOMS),
        *(pytest.param(ROOT / r, id=r) for r in ("tests", "benchmarks", "examples", "docs")),
    ],
)
def test_files_and_classes_are_short(folder):
    assert too_long(folder) == []


def test_what_is_too_long_is_named(tmp_path):
    (tmp_path / "short.py").write_text("class Short:\n" + "    x = 1\n" * 299)
    (tmp_path / "long.py").write_text("class Long:\n" + "    x = 1\n" * 300 + "\n" * 100)
    assert too_long(tmp_path) == [
        "long.py: long.py has 401 lines, more than 400",
        "long.py: Long has 301 lines, more than 300",
    ]
