"""The notebooks are those of their scripts, and run."""

# What it imports is in no environment of the other engine.
# engine: concrete-python

from __future__ import annotations

import base64
import json
import re

import jupytext
import nbformat
import pytest
from jupytext.compare import compare_notebooks
from notebooks import EXAMPLES, SCRIPTS, execute, paired

NOTEBOOKS = {path.stem: nbformat.read(path, as_version=4) for path in EXAMPLES.glob("*.ipynb")}

# Bytes of a notebook, with its pictures.
LIMIT = 400_000


def outputs(notebook):
    return [
        output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    ]


def texts(notebook) -> list[str]:
    """All that was printed and shown, but for the pictures."""
    found = []
    for output in outputs(notebook):
        found.append(output.get("text", ""))
        found += [v for k, v in output.get("data", {}).items() if not k.startswith("image/")]
    return [text if isinstance(text, str) else json.dumps(text) for text in found]


def agreements(notebook) -> list[str]:
    """Counts of rows whose encrypted prediction is the clear one."""
    return re.findall(r"Encrypted = clear: (\d+ of \d+) rows", "\n".join(texts(notebook)))


def test_every_notebook_has_a_script():
    assert NOTEBOOKS.keys() == {script.stem for script in SCRIPTS}
    assert len(NOTEBOOKS) == 2


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_is_in_step_with_its_script(script):
    # `make notebooks` writes them anew.
    compare_notebooks(jupytext.read(paired(script)), jupytext.read(script), fmt="py:percent")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_stored_notebook_reads_well(name):
    notebook = NOTEBOOKS[name]
    assert paired(EXAMPLES / f"{name}.py").stat().st_size < LIMIT
    (counts,) = agreements(notebook)
    assert len(set(counts.split(" of "))) == 1
    pictures = [o.data["image/png"] for o in outputs(notebook) if "image/png" in o.get("data", {})]
    assert pictures
    for picture in pictures:
        assert base64.b64decode(picture).startswith(b"\x89PNG")
    for output in outputs(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
    for text in texts(notebook):
        assert not re.search(r"(?<![\w.<])/(tmp|home|root|usr|work|Users|var)/|site-packages", text)
        assert not re.search(r" at 0x[0-9a-f]{6,}", text)
    assert not [cell for cell in notebook.cells if "execution" in cell.metadata]
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_scratch(script):
    # Any cell that raises ends it, and one does so where encrypted and clear predictions differ.
    executed = execute(script, max_epochs=10)
    (counts,) = agreements(executed)
    assert len(set(counts.split(" of "))) == 1
