"""Limits of time, memory and connections of a service."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
from serving import Service, needs_proc, post, put_keys, wait_until

from cipherlearn.deployment import FHEClient, MessageError, RemoteModel, UnknownKeyError
from cipherlearn.deployment.keys._key_store import KeyStore, space_of

pytestmark = needs_proc


def test_a_worker_that_died_idle_is_replaced_unnoticed(
    tmp_path, linear_artefacts, deployed_linear, labelled_rows
):
    X, _ = labelled_rows
    flags = ("--workers", "2")
    with Service(linear_artefacts / "server.zip", tmp_path / "keys", *flags) as service:
        remote = RemoteModel(service.url, n_retries=0)
        remote.upload_keys()
        for worker in service.worker_ids():
            os.kill(worker, signal.SIGKILL)
        np.testing.assert_array_equal(remote.predict(X[:3]), deployed_linear.predict(X[:3]))
        assert service.metric("cipherlearn_worker_restarts_total") == 2
        assert service.is_healthy()


def test_who_went_away_is_not_waited_for(tmp_path, artefacts, labelled_rows):
    X, _ = labelled_rows
    with Service(artefacts / "server.zip", tmp_path / "keys") as service:
        client = FHEClient(artefacts / "client.zip")
        client.generate_keys()
        put_keys(service, client)
        (worker,) = service.worker_ids()
        os.kill(worker, signal.SIGSTOP)
        (body,) = client.encrypt(X[:1])
        host, port = service.url.removeprefix("http://").split(":")
        head = (
            f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connections = [socket.create_connection((host, int(port))) for _ in range(5)]
        for connection in connections:
            connection.sendall(head.encode() + body)
        wait_until(lambda: service.metric("cipherlearn_pending") == 5)
        for connection in connections:
            connection.close()
        wait_until(lambda: service.metric("cipherlearn_pending") == 0)
        start = time.monotonic()
        service.stop()
        assert time.monotonic() - start < 5


def test_connections_are_used_again(linear_service, labelled_rows, monkeypatch):
    remote = RemoteModel(linear_service.url)
    remote.predict(labelled_rows[0][:1])
    opened = []
    connect = socket.socket.connect
    monkeypatch.setattr(
        socket.socket, "connect", lambda self, to: (opened.append(to), connect(self, to))
    )
    for _ in range(5):
        remote.predict(labelled_rows[0][:40])
    assert not opened


def test_a_method_of_ones_own_makes_no_metric_of_its_own(linear_service):
    for name in ("MINE", "YOURS"):
        requests.request(name, linear_service.url, timeout=10)
    text = requests.get(f"{linear_service.url}/metrics", timeout=10).text
    assert "MINE" not in text
    assert 'method="other"' in text


def test_a_disk_that_fails_is_an_error_of_the_service(
    tmp_path, linear_artefacts, linear_client, labelled_rows
):
    (ciphertext,) = linear_client.encrypt(labelled_rows[0][:1])
    with Service(linear_artefacts / "server.zip", tmp_path / "keys") as service:
        assert put_keys(service, linear_client).status_code == 201
        shutil.rmtree(service.data_dir)
        response = put_keys(service, linear_client)
        assert response.status_code == 507
        assert post(service, ciphertext).status_code == 404
        assert service.is_healthy()


def test_heads_are_bounded_and_long_paths_are_cut_in_logs(linear_service):
    path = "/" + "p" * 1000
    assert requests.get(linear_service.url + path, timeout=10).status_code == 404
    # The answer comes before its line in the log.
    wait_until(lambda: path[:200] in [log.get("path") for log in linear_service.logs()])
    with linear_service.connect() as connection:
        connection.sendall(
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * (1 << 14)
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")


def test_too_many_requests_are_told_to_come_back(tmp_path, artefacts, labelled_rows):
    X, _ = labelled_rows
    flags = ("--max-pending", "1")
    with Service(artefacts / "server.zip", tmp_path / "keys", *flags) as service:
        client = FHEClient(artefacts / "client.zip")
        client.generate_keys()
        put_keys(service, client)
        bodies = list(client.encrypt(X[:8]))
        with ThreadPoolExecutor(8) as threads:
            responses = list(threads.map(lambda body: post(service, body), bodies))
        statuses = Counter(response.status_code for response in responses)
        assert set(statuses) == {200, 503}
        busy = next(response for response in responses if response.status_code == 503)
        assert busy.headers["Retry-After"] == "1"
        # A client that comes back gets what it asked for.
        models = [RemoteModel(service.url, n_retries=8) for _ in range(2)]
        with ThreadPoolExecutor(2) as threads:
            first, second = threads.map(lambda model: model.predict(X[:3]), models)
        np.testing.assert_array_equal(first, second)


def test_an_evaluation_that_takes_too_long_is_ended(tmp_path, artefacts, labelled_rows):
    flags = ("--evaluation-timeout", "1")
    with Service(artefacts / "server.zip", tmp_path / "keys", *flags) as service:
        client = FHEClient(artefacts / "client.zip")
        client.generate_keys()
        put_keys(service, client)
        (ciphertext,) = client.encrypt(labelled_rows[0][:1])
        (worker,) = service.worker_ids()
        os.kill(worker, signal.SIGSTOP)  # stopped, it never answers
        response = post(service, ciphertext)
        assert response.status_code == 504
        assert "1 seconds" in response.json()["detail"]
        wait_until(lambda: service.worker_ids() not in ([], [worker]))
        wait_until(service.is_healthy)


def test_the_least_used_keys_go_first(tmp_path, linear_client, linear_artefacts):
    clients = [FHEClient(linear_artefacts / "client.zip") for _ in range(3)]
    for each in clients:
        each.generate_keys()
    size = space_of(len(clients[0].evaluation_keys()))
    store = KeyStore(tmp_path / "keys", 2 * size, lambda keys: None)

    def add(client):
        with store.upload(client.key_id) as upload:
            upload.write(client.evaluation_keys())
            upload.commit()

    first, second, third = clients
    add(first)
    add(second)
    store.use(first.key_id)
    add(third)
    assert first.key_id in store
    assert second.key_id not in store
    assert third.key_id in store
    assert store.n_bytes == 2 * size
    with pytest.raises(UnknownKeyError):
        store.use(second.key_id)
    with pytest.raises(ValueError, match="in use by another"):
        KeyStore(tmp_path / "keys", 2 * size, lambda keys: None)
    store.close()
    again = KeyStore(tmp_path / "keys", 2 * size, lambda keys: None)
    assert list(again._sizes) == [first.key_id, third.key_id]
    again.close()


def test_an_upload_that_is_refused_leaves_nothing(tmp_path):
    def refuse(keys):
        raise MessageError("no")

    store = KeyStore(tmp_path / "keys", 100, refuse)
    with store.upload(hashlib.sha256(b"x").hexdigest()) as upload:
        upload.write(b"x")
        with pytest.raises(MessageError, match="no"):
            upload.commit()
    assert [path.name for path in (tmp_path / "keys").iterdir()] == [".lock"]
    assert len(store) == 0
    store.close()


def test_evicted_keys_are_uploaded_again(tmp_path, linear_artefacts, labelled_rows):
    X, _ = labelled_rows
    client = FHEClient(linear_artefacts / "client.zip")
    client.generate_keys()
    room_for_one = ("--max-key-store-bytes", str(space_of(len(client.evaluation_keys()))))
    with Service(linear_artefacts / "server.zip", tmp_path / "keys", *room_for_one) as service:
        first, second = (RemoteModel(service.url, n_retries=12) for _ in range(2))
        expected = first.predict(X[:3])
        for remote in (second, first, second):
            np.testing.assert_array_equal(remote.predict(X[:3]), expected)
        assert service.metric("cipherlearn_keys") == 1


def test_keys_that_are_evicted_midway_are_uploaded_again(
    tmp_path, linear_artefacts, deployed_linear, labelled_rows
):
    X, _ = labelled_rows
    with Service(linear_artefacts / "server.zip", tmp_path / "keys", "--max-key-bytes", "1") as s:
        remote = RemoteModel(s.url)
        remote.upload_keys()
        real, calls = remote._connection._session.send, []

        def forgetting(request, **kwargs):
            response = real(request, **kwargs)
            if request.method == "POST" and not calls:
                calls.append(request)
                # After the status is sent, and while further results are computed.
                requests.delete(f"{s.url}/v1/keys/{remote.client_.key_id}", timeout=10)
                other = FHEClient(linear_artefacts / "client.zip")
                other.generate_keys()
                put_keys(s, other)
                post(s, next(iter(other.encrypt(X[:1]))))
            return response

        remote._connection._session.send = forgetting
        rows = np.tile(X, (4, 1))
        np.testing.assert_array_equal(remote.predict(rows), deployed_linear.predict(rows))
        assert calls


@pytest.mark.alone
def test_memory_and_latency_stay_flat_over_500_requests(linear_service, labelled_rows):
    client = FHEClient.from_bytes(
        requests.get(f"{linear_service.url}/v1/client.zip", timeout=10).content
    )
    client.generate_keys()
    put_keys(linear_service, client)
    (ciphertext,) = client.encrypt(labelled_rows[0][:2])
    session = requests.Session()
    seconds, memory = [], []
    for _ in range(500):
        start = time.perf_counter()
        response = session.post(f"{linear_service.url}/v1/predict", data=ciphertext, timeout=10)
        seconds.append(time.perf_counter() - start)
        memory.append(linear_service.memory())
        assert response.status_code == 200
    assert max(memory[-50:]) - max(memory[50:100]) < 5_000_000
    assert np.median(seconds[-100:]) < 1.5 * np.median(seconds[50:150])
