"""The README's examples are real, and nothing in it waits to be filled in."""

# Keys for these sums take many minutes with the other engine.
# engine: concrete-python

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
from serving import wait_for

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
TEN_LINES, SAVING = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def run_code(code):
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    return names


def test_the_ten_lines_run_and_predict_encrypted_rows(capsys):
    run_code(TEN_LINES)
    score, encrypted = capsys.readouterr().out.splitlines()
    assert float(score) > 0.9
    assert re.fullmatch(r"\[[01] [01] [01]\]", encrypted)


def test_the_commands_of_the_server_serve_the_model_of_the_ten_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Of one layer, which takes a fraction of the time.
    code = TEN_LINES.replace("NeuralNetClassifier(", "NeuralNetClassifier(module__n_layers=1, ")
    names = run_code(code + SAVING)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    section = README.split("## Put it on a server")[1].split("\n## ")[0]
    blocks = re.findall(r"```console\n(.*?)```", section, flags=re.DOTALL)
    export, serve, predict = "".join(blocks).replace("8000", port).splitlines()
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path / "data")}

    def start(command, *flags):
        program, *arguments = shlex.split(command)
        assert program == "cipherlearn"
        return subprocess.Popen(
            [sys.executable, "-m", program, *arguments, *flags], env=environment
        )

    assert start(export).wait(120) == 0
    service = start(serve, "--port", port)
    try:
        wait_for(f"http://localhost:{port}")
        assert start(predict).wait(120) == 0
    finally:
        service.terminate()
        service.wait(60)
    predicted = pd.read_csv("predictions.csv")["prediction"].tolist()
    assert predicted == names["clf"].predict(names["X_test"][:3]).tolist()


def test_no_placeholder_is_left():
    assert "@@" not in README
