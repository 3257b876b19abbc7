"""Make the notebooks of their scripts, with what they print and draw.

``python tests/notebooks.py`` writes them, which ``make notebooks`` calls.
"""

# What it imports is in no environment of the other engine.
# engine: concrete-python

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbformat import NotebookNode

import cipherlearn

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted((EXAMPLES / "notebooks").glob("*.py"))


def execute(script: Path, max_epochs: int = 100) -> NotebookNode:
    """Run a script's cells in a new kernel, and return the notebook with their outputs."""
    code = script.read_text("utf-8")
    assert "max_epochs=100," in code
    notebook = jupytext.reads(code.replace("max_epochs=100,", f"max_epochs={max_epochs},"), "py")
    # Random ones would change with every run.
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"
    with tempfile.TemporaryDirectory() as directory:
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=300,
            record_timing=False,
            resources={"metadata": {"path": directory}},
        )
        client.execute(
            env={
                **os.environ,
                # The same cipherlearn as here, installed or not.
                "PYTHONPATH": str(Path(cipherlearn.__file__).parents[1]),
            }
        )
    notebook.metadata.pop("language_info", None)
    return notebook


def paired(script: Path) -> Path:
    """The notebook of a script."""
    return EXAMPLES / f"{script.stem}.ipynb"


if __name__ == "__main__":
    for script in SCRIPTS:
        jupytext.write(execute(script), paired(script))
        print(paired(script).name)
