"""Output of ``cipherlearn serve`` on a terminal, and the folder of its keys."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time

import pandas as pd
from serving import Service

from cipherlearn.cli import main


class Terminal:
    """``cipherlearn serve`` with a terminal for its logs. A context that ends it."""

    def __init__(self, directory, *arguments):
        self._end, other = pty.openpty()
        environment = {**os.environ, "XDG_DATA_HOME": str(directory / "data")}
        environment.pop("CIPHERLEARN_TOKEN", None)
        command = [sys.executable, "-m", "cipherlearn", "serve", *map(str, arguments)]
        self.process = subprocess.Popen(
            [*command, "--port", "0"], stderr=other, env=environment, cwd=directory
        )
        os.close(other)

    def read_until(self, pattern):
        text, deadline = "", time.monotonic() + 60
        while time.monotonic() < deadline:
            if select.select([self._end], [], [], 1)[0]:
                try:
                    text += os.read(self._end, 4096).decode().replace("\r\n", "\n")
                except OSError:  # the other end is closed
                    break
            if found := re.search(pattern, text):
                return found
        raise AssertionError(f"{pattern} is not in {text}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        os.close(self._end)


def test_a_terminal_shows_the_command_of_a_client(
    tmp_path, monkeypatch, linear_artefacts, deployed_linear, labelled_rows
):
    X, _ = labelled_rows
    # As while one token replaces another.
    (tmp_path / "the token").write_text("new-secret\nold-secret\n")
    with Terminal(
        tmp_path, linear_artefacts / "server.zip", "--token-file", "the token"
    ) as terminal:
        found = terminal.read_until(r"Ready at (\S+), with .* keys in (\S+)\. .*\n\n  (.*)\n\n")
        url, directory, command = found.groups()
        monkeypatch.chdir(tmp_path)
        pd.DataFrame(X[:3]).to_csv("rows.csv", index=False)
        program, *arguments = shlex.split(command)
        assert program == "cipherlearn"
        assert url in arguments
        main(arguments)
        predicted = pd.read_csv("predictions.csv")["prediction"]
        assert predicted.tolist() == deployed_linear.predict(X[:3]).tolist()
    # The clients' keys are there, and not where the service happened to be started.
    assert directory == str(tmp_path / "data" / "cipherlearn" / "keys")
    assert len(os.listdir(directory)) > 0
    written = {"rows.csv", "predictions.csv", "my.keys", "data", "the token"}
    assert set(os.listdir(tmp_path)) == written


def test_logs_that_go_elsewhere_have_no_such_line_and_name_the_directory(
    tmp_path, linear_artefacts
):
    with Service(linear_artefacts / "server.zip", tmp_path / "keys") as service:
        logs = service.logs()  # each line is a record
    assert [log["directory"] for log in logs if log["event"] == "keys"] == [str(tmp_path / "keys")]


def test_the_address_is_one_that_a_client_can_use(tmp_path, linear_artefacts):
    with Terminal(tmp_path, linear_artefacts / "server.zip", "--host", "0.0.0.0") as terminal:
        terminal.read_until(r"--url http://localhost:\d+ --keys my\.keys")
