"""A stranger's CSV goes to a remote encrypted prediction in few lines; test_examples runs them."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import ast
from pathlib import Path

import pandas as pd

EXAMPLE = Path(__file__).parents[2] / "examples" / "messy_csv.py"


def test_it_takes_fewer_than_15_lines_from_the_csv_to_the_prediction():
    functions = {
        node.name: node for node in ast.parse(EXAMPLE.read_text()).body if hasattr(node, "name")
    }
    lines = [line for name in ("train", "predict") for line in statement_lines(functions[name])]
    assert 0 < len(lines) < 15


def statement_lines(function):
    # All lines of its body but the last one of train, which hands over what the test compares.
    body = function.body[:-1] if function.name == "train" else function.body
    return [n for statement in body for n in range(statement.lineno, statement.end_lineno + 1)]


def test_the_csv_has_categories_holes_and_a_rare_class(tmp_path):
    names: dict = {"__name__": "example"}
    exec(compile(EXAMPLE.read_text(), str(EXAMPLE), "exec"), names)
    names["write_csv"](tmp_path / "rows.csv")
    table = pd.read_csv(tmp_path / "rows.csv")
    assert (table["leaves"] == "yes").mean() == 0.06
    assert isinstance(table["country"][0], str)
    assert table[["country", "age", "spent"]].isna().any().all()
