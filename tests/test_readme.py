"""The README's example is real, and nothing in it waits to be filled in."""

from __future__ import annotations

import re
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_ten_lines_run_and_predict_encrypted_rows(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    score, encrypted = capsys.readouterr().out.splitlines()
    assert float(score) > 0.9
    assert re.fullmatch(r"\[[01] [01] [01]\]", encrypted)


def test_no_placeholder_is_left():
    assert "@@" not in README
