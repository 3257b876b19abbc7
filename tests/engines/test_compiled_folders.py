"""Folders of compiled circuits go with their process, however it ends."""

# Compiled servers are its.
# engine: concrete-python

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from cipherlearn._folders import make_folder

PROGRAM = """
import sys
from cipherlearn._folders import make_folder

class Owner: pass

owner = Owner()
print(make_folder(owner), flush=True)
sys.stdin.read()
"""


class Owner:
    pass


@pytest.fixture
def process(tmp_path):
    """A process with a folder, and that folder."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as process:
        folder = Path(process.stdout.readline().strip())
        assert folder.parent == tmp_path
        (folder / "sharedlib.so").write_text("x")
        yield process, folder
        process.kill()


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def made_long_ago(folder):
    os.utime(folder, (time.time() - 3600, time.time() - 3600))


def test_what_a_killed_process_left_is_removed_at_the_next_start(process):
    process, folder = process
    made_long_ago(folder)
    make_folder(Owner())
    assert folder.exists()  # it lives
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert folder.exists()
    make_folder(Owner())
    assert not folder.exists()


def test_a_process_that_ends_removes_its_folder(process):
    process, folder = process
    process.communicate()
    assert process.returncode == 0
    assert not folder.exists()


def test_what_may_be_of_others_stays(tmp_path):
    new = Path(tempfile.mkdtemp(prefix="cipherlearn-circuit-"))
    own = tmp_path / "cipherlearn-data"
    own.mkdir()
    made_long_ago(own)
    (tmp_path / "elsewhere").mkdir()
    made_long_ago(tmp_path / "elsewhere")
    (tmp_path / "cipherlearn-circuit-link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "cipherlearn-circuit-file").write_text("x")
    owner = Owner()
    folder = make_folder(owner)
    del owner
    assert not Path(folder).exists()
    assert {path.name for path in tmp_path.iterdir()} == {
        new.name,
        "cipherlearn-data",
        "elsewhere",
        "cipherlearn-circuit-link",
        "cipherlearn-circuit-file",
    }
