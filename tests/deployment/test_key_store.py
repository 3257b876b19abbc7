"""The store of evaluation keys, and what may stand in its place."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import resource
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest
import requests
from memory import peak_below
from serving import Service, needs_proc, post, put_keys

from cipherlearn.deployment import FHEClient, RemoteModel
from cipherlearn.deployment._served import ServedModel
from cipherlearn.deployment.artefacts._archive import write_file
from cipherlearn.deployment.keys import _key_store
from cipherlearn.deployment.keys._key_store import KeyStore, space_of

KEYS = [bytes([i]) * 100 for i in range(4)]
ROOM_FOR_TWO = 2 * space_of(100)
IDS = [hashlib.sha256(keys).hexdigest() for keys in KEYS]


def opened(directory, max_bytes=1_000_000):
    return KeyStore(directory, max_bytes, lambda keys: None)


def add(store, i):
    with store.upload(IDS[i]) as upload:
        upload.write(KEYS[i])
        return upload.commit()


def test_what_is_no_file_is_an_error_of_the_store(tmp_path):
    opened(tmp_path / "keys").close()
    for make in (
        lambda path: path.mkdir(),
        lambda path: path.symlink_to(tmp_path / "elsewhere"),
        lambda path: os.mkfifo(path),
    ):
        path = tmp_path / "keys" / IDS[0]
        make(path)
        with pytest.raises(ValueError, match=f"must hold keys as files. .*{IDS[0]} is none"):
            opened(tmp_path / "keys")
        path.rmdir() if path.is_dir() else path.unlink()
    opened(tmp_path / "keys").close()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError):
        opened(tmp_path / "file")


@needs_proc
def test_what_replaces_keys_meanwhile_kills_no_worker(
    tmp_path, linear_artefacts, linear_client, labelled_rows
):
    (ciphertext,) = linear_client.encrypt(labelled_rows[0][:2])
    with Service(linear_artefacts / "server.zip", tmp_path / "keys") as service:
        assert put_keys(service, linear_client).status_code == 201
        workers = service.worker_ids()
        path = service.data_dir / linear_client.key_id
        path.unlink()
        path.mkdir()
        for _ in range(3):
            response = post(service, ciphertext)
            assert response.status_code == 507
            assert str(tmp_path) not in response.text
        path.rmdir()
        (tmp_path / "elsewhere").write_bytes(linear_client.evaluation_keys())
        path.symlink_to(tmp_path / "elsewhere")
        assert post(service, ciphertext).status_code == 507
        path.unlink()
        assert put_keys(service, linear_client).status_code == 201
        assert post(service, ciphertext).status_code == 200
        assert service.worker_ids() == workers


def test_the_lock_follows_no_link_and_empties_nothing(tmp_path):
    (tmp_path / "keys").mkdir()
    (tmp_path / "mine").write_text("precious")
    lock = tmp_path / "keys" / ".lock"
    lock.symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="symbolic link"):
        opened(tmp_path / "keys")
    assert (tmp_path / "mine").read_text() == "precious"
    lock.unlink()
    lock.write_text("precious")
    opened(tmp_path / "keys").close()
    assert lock.read_text() == "precious"


def test_what_cannot_be_deleted_is_still_counted(tmp_path, monkeypatch):
    store = opened(tmp_path / "keys", ROOM_FOR_TWO)
    add(store, 0)
    add(store, 1)

    def refuse(*_, **__):
        raise PermissionError("no")

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        patch.setattr("pathlib.Path.unlink", refuse)
        with pytest.raises(PermissionError):
            store.remove(IDS[0])
        with pytest.raises(PermissionError):
            add(store, 2)
    assert len(store) == 2
    assert store.n_bytes == ROOM_FOR_TWO
    assert add(store, 2) == [IDS[0]]
    assert len(store) == 2
    store.close()


def test_keys_that_cannot_be_stored_cost_nobody_elses(tmp_path, monkeypatch):
    store = opened(tmp_path / "keys", ROOM_FOR_TWO)
    add(store, 0)
    add(store, 1)

    def refuse(*_):
        raise OSError("no")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(OSError, match="no"):
            add(store, 2)
    assert [each in store for each in IDS[:3]] == [True, True, False]
    assert {path.name for path in store.directory.iterdir()} == {".lock", *IDS[:2]}
    store.close()


@needs_proc
def test_a_directory_that_cannot_be_written_to_disk_leaves_no_file_open(tmp_path, monkeypatch):
    store = opened(tmp_path / "keys")
    real, n_open = os.fsync, len(os.listdir("/proc/self/fd"))

    def refuse(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError("no")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    for write in (lambda: add(store, 0), lambda: write_file(tmp_path / "file", b"x")):
        with pytest.raises(OSError, match="no"):
            write()
    assert len(os.listdir("/proc/self/fd")) == n_open
    store.close()


def test_a_check_of_keys_holds_them_once(tmp_path, artefacts, client):
    served = ServedModel(artefacts / "server.zip")
    keys = client.evaluation_keys()
    assert len(keys) > 1 << 20
    store = KeyStore(tmp_path / "keys", space_of(len(keys)), served.check_evaluation_keys)
    with store.upload(client.key_id) as upload:
        upload.write(keys)
        with peak_below(1.1 * len(keys)):
            upload.commit()
    assert client.key_id in store
    store.close()


def test_no_other_waits_for_a_disk_that_syncs(tmp_path, monkeypatch):
    store = opened(tmp_path / "keys")
    add(store, 0)
    used = []

    def sync(directory):
        user = threading.Thread(target=store.use, args=[IDS[0]], daemon=True)
        user.start()
        user.join(5)
        used.append(not user.is_alive())

    monkeypatch.setattr(_key_store, "sync_directory", sync)
    add(store, 1)
    assert used == [True]
    store.close()


def test_only_damaged_keys_are_removed_as_damaged(tmp_path, monkeypatch):
    store = opened(tmp_path / "keys")
    for i in range(4):
        add(store, i)
    assert not store.remove_damaged(IDS[0])
    (tmp_path / "keys" / IDS[1]).write_bytes(b"damaged")
    assert store.remove_damaged(IDS[1])
    assert not (tmp_path / "keys" / IDS[1]).exists()
    (tmp_path / "keys" / IDS[2]).unlink()
    assert store.remove_damaged(IDS[2])
    assert not store.remove_damaged(IDS[2])
    # A client uploads them again just before they would be removed.
    (tmp_path / "keys" / IDS[3]).write_bytes(b"damaged")
    real = _key_store.read_keys

    def read_and_replace(directory, key_id):
        try:
            return real(directory, key_id)
        finally:
            add(store, 3)

    monkeypatch.setattr(_key_store, "read_keys", read_and_replace)
    assert not store.remove_damaged(IDS[3])
    assert (tmp_path / "keys" / IDS[3]).read_bytes() == KEYS[3]
    assert len(store) == 2
    store.close()


def test_small_keys_count_what_they_take(tmp_path):
    sizes = (1, 61440, 61441, 1 << 20)
    assert list(map(space_of, sizes)) == [65536, 65536, 69632, (1 << 20) + 4096]
    store = opened(tmp_path / "keys", 20 * 65536)
    for i in range(100):
        keys = b"%144d" % i  # those of a linear model
        with store.upload(hashlib.sha256(keys).hexdigest()) as upload:
            upload.write(keys)
            upload.commit()
    assert (len(store), store.n_bytes) == (20, 20 * 65536)
    store.close()
    again = opened(tmp_path / "keys", 20 * 65536)
    assert again.n_bytes == 20 * 65536
    again.remove(hashlib.sha256(keys).hexdigest())
    assert again.n_bytes == 19 * 65536
    again.close()


def test_the_order_of_use_does_not_follow_clocks(tmp_path):
    store = opened(tmp_path / "keys", ROOM_FOR_TWO)
    add(store, 0)
    add(store, 1)
    store.use(IDS[0])
    # As after a clock that was an hour ahead, and then a day behind.
    for i, jump in ((0, -86400), (1, 3600)):
        path = tmp_path / "keys" / IDS[i]
        now = path.stat().st_mtime
        os.utime(path, (now + jump, now + jump))
    assert add(store, 2) == [IDS[1]]
    store.close()
    again = opened(tmp_path / "keys", ROOM_FOR_TWO)
    assert len(again) == 2
    assert add(again, 3) == [IDS[0]]
    again.close()


@needs_proc
def test_a_full_disk_is_an_error_of_the_service_alone(
    tmp_path, artefacts, deployed_pipeline, labelled_rows
):
    X, _ = labelled_rows
    with Service(artefacts / "server.zip", tmp_path / "keys") as service:
        remote = RemoteModel(service.url, n_retries=0)
        remote.upload_keys()
        other = FHEClient(artefacts / "client.zip")
        other.generate_keys()
        # No file of the service can grow any more, but the log.
        assert len(other.evaluation_keys()) > 100_000
        limits = resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (100_000, -1))
        response = put_keys(service, other)
        assert response.status_code == 507
        assert str(tmp_path) not in response.text
        assert {path.name for path in service.data_dir.iterdir()} == {
            ".lock",
            remote.client_.key_id,
        }
        expected = deployed_pipeline.predict(X[:3])
        np.testing.assert_array_equal(remote.predict(X[:3]), expected)
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, limits)
        assert put_keys(service, other).status_code == 201


@contextlib.contextmanager
def read_only(directory):
    """Let nobody write in a directory, not even the superuser."""
    if os.geteuid():
        directory.chmod(0o500)
        yield
        directory.chmod(0o700)
        return
    mount = ["mount", "--bind", str(directory), str(directory)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("the superuser may not mount here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(directory)], check=True)
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


@needs_proc
def test_a_store_that_became_read_only_still_gives_its_keys(
    tmp_path, linear_artefacts, deployed_linear, labelled_rows
):
    X, _ = labelled_rows
    with Service(linear_artefacts / "server.zip", tmp_path / "keys") as service:
        remote = RemoteModel(service.url, n_retries=0)
        remote.upload_keys()
        with read_only(service.data_dir):
            np.testing.assert_array_equal(remote.predict(X[:3]), deployed_linear.predict(X[:3]))
            other = FHEClient(linear_artefacts / "client.zip")
            other.generate_keys()
            assert put_keys(service, other).status_code == 507
            url = f"{service.url}/v1/keys/{remote.client_.key_id}"
            assert requests.delete(url, timeout=10).status_code == 507
            assert requests.get(url, timeout=10).status_code == 200
            assert service.is_healthy()


@needs_proc
def test_a_store_that_cannot_be_written_is_refused(tmp_path, linear_artefacts):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "key").write_text("x")
    with read_only(tmp_path / "keys"):
        result = serve(linear_artefacts / "server.zip", tmp_path / "keys")
    assert result.returncode == 1
    assert re.fullmatch(
        rf"cipherlearn: error: (Read-only file system|Permission denied): {tmp_path}/keys/.lock\n",
        result.stderr,
    )


@needs_proc
def test_of_two_services_on_one_store_the_second_is_refused(
    tmp_path, linear_artefacts, linear_client
):
    with Service(linear_artefacts / "server.zip", tmp_path / "keys") as first:
        assert put_keys(first, linear_client).status_code == 201
        result = serve(linear_artefacts / "server.zip", tmp_path / "keys")
        assert result.returncode == 1
        assert "needs a data directory of its own" in result.stderr
        assert first.is_healthy()
        assert (first.data_dir / linear_client.key_id).exists()


def serve(server_zip, data_dir):
    """Start a service that is to end by itself."""
    command = [sys.executable, "-m", "cipherlearn", "serve", str(server_zip), "--port", "0"]
    return subprocess.run(
        [*command, "--data-dir", str(data_dir)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@needs_proc
def test_uploads_deletions_and_evictions_are_logged(tmp_path, linear_artefacts, linear_client):
    n_bytes = len(linear_client.evaluation_keys())
    flags = ("--max-key-store-bytes", str(space_of(n_bytes)))
    other = FHEClient(linear_artefacts / "client.zip")
    other.generate_keys()
    with Service(linear_artefacts / "server.zip", tmp_path / "keys", *flags) as service:
        answers = [put_keys(service, linear_client), put_keys(service, other)]
        answers += [requests.delete(f"{service.url}/v1/keys/{other.key_id}", timeout=10)]
        service.stop()
        logged = [log for log in service.logs() if log["logger"] == "cipherlearn.audit"]
    assert [(log["event"], log["key_id"]) for log in logged] == [
        ("keys stored", linear_client.key_id),
        ("keys stored", other.key_id),
        ("keys evicted", linear_client.key_id),
        ("keys deleted", other.key_id),
    ]
    assert {log["client"] for log in logged} == {"127.0.0.1"}
    ids = [answer.headers["X-Request-ID"] for answer in answers]
    assert [log["request_id"] for log in logged] == [ids[0], ids[1], ids[1], ids[2]]
    assert logged[0]["bytes"] == n_bytes


def test_they_are_logged_at_every_level():
    program = (
        "from cipherlearn.deployment.service._logs import AUDIT, configure_logging; "
        "configure_logging('WARNING'); AUDIT.info('keys deleted')"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert '"event": "keys deleted"' in result.stderr
