"""Workers: what they are told, where they import from, and what becomes of those that die."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time

import pytest
import requests
from serving import Service, needs_proc, post, put_keys, wait_until

from cipherlearn.deployment import FHEServer
from cipherlearn.deployment.service._worker import Worker, WorkerSettings

pytestmark = needs_proc


def health(service):
    return requests.get(f"{service.url}/health", timeout=10)


def test_a_worker_that_dies_idle_is_replaced_before_anybody_asks(tmp_path, linear_artefacts):
    with Service(linear_artefacts / "server.zip", tmp_path / "keys", "--workers", "2") as service:
        first, second = service.worker_ids()
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(service.worker_ids()) == 2 and first not in service.worker_ids())
        assert second in service.worker_ids()
        wait_until(lambda: service.metric("cipherlearn_worker_restarts_total") == 1)


def test_the_health_tells_that_no_worker_lives(
    tmp_path, linear_artefacts, linear_client, labelled_rows
):
    server_zip = tmp_path / "server.zip"
    shutil.copy(linear_artefacts / "server.zip", server_zip)
    with Service(server_zip, tmp_path / "keys") as service:
        assert put_keys(service, linear_client).status_code == 201
        assert health(service).status_code == 200
        # None can be started either.
        server_zip.rename(tmp_path / "elsewhere")
        os.kill(*service.worker_ids(), signal.SIGKILL)
        wait_until(lambda: health(service).status_code == 503)
        assert "No worker" in health(service).json()["detail"]
        (tmp_path / "elsewhere").rename(server_zip)
        wait_until(lambda: health(service).status_code == 200)
        (ciphertext,) = linear_client.encrypt(labelled_rows[0][:2])
        assert post(service, ciphertext).status_code == 200


def test_a_worker_serves_no_other_model_than_the_service(
    tmp_path, linear_artefacts, artefacts, linear_client, labelled_rows
):
    server_zip = tmp_path / "server.zip"
    shutil.copy(linear_artefacts / "server.zip", server_zip)
    with Service(server_zip, tmp_path / "keys") as service:
        assert put_keys(service, linear_client).status_code == 201
        # Somebody brings the next model before the service is ended.
        shutil.copy(artefacts / "server.zip", server_zip)
        (ciphertext,) = linear_client.encrypt(labelled_rows[0][:2])
        assert post(service, ciphertext).status_code == 200
        os.kill(*service.worker_ids(), signal.SIGKILL)
        wait_until(lambda: "Start the service anew" in service.log_path.read_text())
        assert health(service).status_code == 503


@pytest.mark.parametrize("n_bytes", [10, 1_000_000])
def test_a_worker_that_is_stopped_is_not_waited_for(tmp_path, linear_artefacts, n_bytes):
    server_zip = linear_artefacts / "server.zip"
    model_id = FHEServer(server_zip).model_id
    settings = WorkerSettings(str(server_zip), model_id, str(tmp_path), 10**9, 1, 20)
    worker = Worker(settings)
    os.kill(worker._process.pid, signal.SIGSTOP)
    rescue = threading.Timer(20, worker.kill)
    rescue.start()
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="may take 1 seconds"):
        worker.ask(bytes(n_bytes), "key", 1)
    assert time.monotonic() - start < 10
    assert not worker.is_running()
    rescue.cancel()
    worker.kill()


def test_workers_do_not_import_from_the_working_directory(tmp_path, linear_artefacts):
    # As the installed command does, which has no working directory in its own path.
    program = tmp_path / "bin" / "cipherlearn.py"
    program.parent.mkdir()
    program.write_text("import sys; sys.path.pop(0)\nfrom cipherlearn.cli import main\nmain()\n")
    working = tmp_path / "anybody's"
    working.mkdir()
    for name in ("multiprocessing", "json", "random", "numpy", "cipherlearn", "sitecustomize"):
        (working / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    program = [str(program)]
    server_zip, data_dir = linear_artefacts / "server.zip", tmp_path / "keys"
    with Service(server_zip, data_dir, program=program, cwd=working) as service:
        assert health(service).status_code == 200
    assert not (tmp_path / "ran").exists()


def test_workers_are_told_no_more_than_they_need(tmp_path, linear_artefacts):
    with Service(linear_artefacts / "server.zip", tmp_path / "keys", token="t" * 40) as service:
        (worker,) = service.worker_ids()
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: service.worker_ids() not in ([], [worker]))
        (worker,) = service.worker_ids()  # another, which a running service started
        with open(f"/proc/{worker}/environ", "rb") as file:
            assert b"t" * 40 not in file.read()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the option is of Python 3.11")
def test_a_service_runs_with_a_safe_path(tmp_path, linear_artefacts):
    flags = ("-P", "-m", "cipherlearn")
    with Service(linear_artefacts / "server.zip", tmp_path / "keys", program=flags) as service:
        assert health(service).status_code == 200
