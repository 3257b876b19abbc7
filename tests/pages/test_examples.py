"""Every example runs, with short trainings, and says what it is supposed to show."""

# Keys for these sums take many minutes with the other engine.
# engine: concrete-python

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))

# What makes an example shorter. test_readme.py runs the default network of the demonstration.
SHORTER = {
    "demo": ("NeuralNetClassifier(", "NeuralNetClassifier(**SMALL, "),
    "deployment": ("random_state=0,\n        )", "random_state=0,\n            max_epochs=20)"),
    "messy_csv": ("N_ROWS = 1000", "N_ROWS = 500"),
}
SMALL = {"module__n_hidden_neurons": 4, "module__n_hidden_accum_bits": 4, "max_epochs": 20}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(example, tmp_path):
    code, (full, short) = example.read_text("utf-8"), SHORTER[example.stem]
    assert code.count(full) == 1
    script = tmp_path / example.name
    script.write_text(code.replace(full, short.replace("**SMALL", f"**{SMALL}")), "utf-8")
    result = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "ncrypted" in result.stdout
