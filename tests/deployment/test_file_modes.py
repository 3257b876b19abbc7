"""Files that are written on machines that others use, too."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import os
import stat
from contextlib import contextmanager

import pytest

from cipherlearn.deployment import export
from cipherlearn.deployment.artefacts._archive import write_file


@contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_artefacts_respect_the_umask(tmp_path, deployed_linear, mask, expected):
    with umask(mask):
        client_zip, server_zip = export(deployed_linear, tmp_path, n_test_rows=1)
    assert mode(client_zip) == expected
    assert mode(server_zip) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["client.zip", "server.zip"]


def test_the_weights_are_for_the_owner_though_the_former_file_was_for_all(
    tmp_path, deployed_linear
):
    (tmp_path / "server.zip").write_bytes(b"")
    (tmp_path / "server.zip").chmod(0o666)
    with umask(0o000):
        _, server_zip = export(deployed_linear, tmp_path, n_test_rows=1)
    assert mode(server_zip) == 0o600


def test_a_private_file_is_private_from_its_first_byte(tmp_path, monkeypatch):
    modes = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: (modes.append(os.fstat(file).st_mode), fsync(file))
    )
    with umask(0o000):
        write_file(tmp_path / "mine", b"secret", is_private=True)
    assert stat.S_IMODE(modes[0]) == 0o600


def test_a_file_that_cannot_be_written_leaves_the_former_one(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_file(path, b"before")

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk is full"):
        write_file(path, b"after")
    assert path.read_bytes() == b"before"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_link_in_the_files_place_is_replaced_and_not_followed(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"somebody else's")
    link.symlink_to(target)
    write_file(link, b"mine")
    assert target.read_bytes() == b"somebody else's"
    assert link.read_bytes() == b"mine"
