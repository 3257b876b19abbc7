"""Services, workers and clients that end at any time lose nothing."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from serving import Service, needs_proc, post, put_keys, wait_until

from cipherlearn.deployment import FHEClient, RemoteModel

pytestmark = needs_proc


def partial_upload(service, client, n_bytes):
    """Begin to upload keys, and go away."""
    keys = client.evaluation_keys()
    connection = service.connect()
    head = f"PUT /v1/keys/{client.key_id} HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Length: {len(keys)}\r\n\r\n"
    connection.sendall(head.encode() + keys[:n_bytes])
    return connection


def test_a_client_that_goes_away_leaves_nothing(service, artefacts):
    client = FHEClient(artefacts / "client.zip")
    client.generate_keys()
    connection = partial_upload(service, client, 1_000_000)
    wait_until(lambda: list(service.data_dir.glob("*.part")))
    connection.close()
    wait_until(lambda: not list(service.data_dir.glob("*.part")))
    assert not (service.data_dir / client.key_id).exists()
    assert service.is_healthy()


def test_keys_survive_a_service_that_is_killed_in_the_middle(
    tmp_path, artefacts, deployed_pipeline, labelled_rows
):
    X, _ = labelled_rows
    server_zip, data_dir = artefacts / "server.zip", tmp_path / "keys"
    with Service(server_zip, data_dir) as service:
        remote = RemoteModel(service.url, keys=tmp_path / "my.keys")
        remote.predict(X[:1])
        other = FHEClient(artefacts / "client.zip")
        other.generate_keys()
        connection = partial_upload(service, other, 1_000_000)
        wait_until(lambda: list(data_dir.glob("*.part")))
        running = threading.Thread(target=lambda: _ignore_errors(lambda: remote.predict(X[:20])))
        running.start()
        wait_until(lambda: service.metric("cipherlearn_pending") > 0)
        service.process.kill()
        connection.close()
        service.process.wait()
    assert list(data_dir.glob("*.part"))
    (data_dir / "film.mkv.part").write_text("somebody else's")
    with Service(server_zip, data_dir) as again:
        running.join()
        kept = {".lock", "film.mkv.part", remote.client_.key_id}
        assert {path.name for path in data_dir.iterdir()} == kept
        resumed = RemoteModel(again.url, keys=tmp_path / "my.keys")
        np.testing.assert_array_equal(resumed.predict(X[:3]), deployed_pipeline.predict(X[:3]))
        routes = [record.get("method") for record in again.logs()]
        assert routes.count("PUT") == 1  # not again after the restart


def _ignore_errors(function):
    with contextlib.suppress(Exception):
        function()


def test_a_prediction_outlives_a_restart_of_the_service(
    tmp_path, linear_artefacts, deployed_linear, labelled_rows
):
    X, _ = labelled_rows
    server_zip, data_dir = linear_artefacts / "server.zip", tmp_path / "keys"
    with Service(server_zip, data_dir) as service:
        # A service may take long to start on a busy machine.
        remote = RemoteModel(service.url, n_retries=8)
        port = service.url.rpartition(":")[2]
        rows = np.tile(X, (10, 1))
        with ThreadPoolExecutor(1) as thread:
            future = thread.submit(remote.predict, rows)
            wait_until(lambda: service.metric("cipherlearn_evaluations_total") > 20)
            service.process.kill()
            service.process.wait()
            with Service(server_zip, data_dir, "--port", port):
                np.testing.assert_array_equal(future.result(120), deployed_linear.predict(rows))


def test_a_worker_that_dies_is_replaced_and_the_prediction_comes(
    tmp_path, artefacts, deployed_pipeline, labelled_rows
):
    X, _ = labelled_rows
    with Service(artefacts / "server.zip", tmp_path / "keys") as service:
        remote = RemoteModel(service.url)
        with ThreadPoolExecutor(1) as thread:
            future = thread.submit(remote.predict, X[:20])
            wait_until(lambda: service.metric("cipherlearn_evaluations_total") > 2)
            (worker,) = service.worker_ids()
            os.kill(worker, signal.SIGKILL)
            np.testing.assert_array_equal(future.result(60), deployed_pipeline.predict(X[:20]))
        assert service.metric("cipherlearn_worker_restarts_total") == 1
        assert worker not in service.worker_ids()


def test_keys_that_are_damaged_on_disk_are_asked_for_again(
    tmp_path, linear_artefacts, deployed_linear, labelled_rows
):
    X, _ = labelled_rows
    server_zip, data_dir = linear_artefacts / "server.zip", tmp_path / "keys"
    with Service(server_zip, data_dir) as service:
        remote = RemoteModel(service.url, keys=tmp_path / "my.keys")
        remote.predict(X[:1])
    path = data_dir / remote.client_.key_id
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with Service(server_zip, data_dir) as service:
        remote = RemoteModel(service.url, keys=tmp_path / "my.keys")
        np.testing.assert_array_equal(remote.predict(X[:3]), deployed_linear.predict(X[:3]))


def test_requests_that_take_too_long_are_cut_when_the_service_is_ended(
    tmp_path, linear_artefacts, linear_client, labelled_rows
):
    (ciphertext,) = linear_client.encrypt(labelled_rows[0][:1])
    flags = ("--shutdown-timeout", "1")
    with Service(linear_artefacts / "server.zip", tmp_path / "keys", *flags) as service:
        put_keys(service, linear_client)
        (worker,) = service.worker_ids()
        os.kill(worker, signal.SIGSTOP)
        with ThreadPoolExecutor(1) as thread:
            future = thread.submit(post, service, ciphertext)
            wait_until(lambda: service.metric("cipherlearn_pending") == 1)
            start = time.monotonic()
            service.stop()
            assert time.monotonic() - start < 20
            assert future.result(20).status_code == 500


def test_requests_in_progress_are_finished_when_the_service_is_ended(
    tmp_path, artefacts, labelled_rows
):
    X, _ = labelled_rows
    with Service(artefacts / "server.zip", tmp_path / "keys") as service:
        client = FHEClient(artefacts / "client.zip")
        client.generate_keys()
        put_keys(service, client)
        body = b"".join(client.encrypt(X[:20]))
        with ThreadPoolExecutor(1) as thread:
            future = thread.submit(post, service, body)
            wait_until(lambda: service.metric("cipherlearn_evaluations_total") > 0)
            assert service.stop() == -signal.SIGTERM
            response = future.result()
        assert len(response.content) == 20 * client.message_bytes("result")
