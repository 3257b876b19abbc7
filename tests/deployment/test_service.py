"""A real server in one process and clients in others: every prediction right, nothing lost."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
from serving import Service

from cipherlearn.deployment import (
    ArtefactError,
    FHEClient,
    MessageError,
    RemoteError,
    RemoteModel,
    UnknownKeyError,
)
from cipherlearn.deployment._messages import Kind, Message
from cipherlearn.deployment.keys._key_store import KeyStore
from cipherlearn.deployment.service import ServiceSettings, _app, _pool, create_app

pytestmark = pytest.mark.skipif(
    not os.path.isdir("/proc"), reason="processes are looked at through /proc"
)


@pytest.fixture(scope="module")
def service(artefacts, tmp_path_factory):
    with Service(artefacts / "server.zip", tmp_path_factory.mktemp("service") / "keys") as service:
        yield service


@pytest.fixture(scope="module")
def linear_service(linear_artefacts, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("linear-service") / "keys"
    with Service(linear_artefacts / "server.zip", data_dir) as service:
        yield service


@pytest.fixture(scope="module")
def remote(service):
    return RemoteModel(service.url)


@pytest.fixture
def linear_remote(linear_service):
    return RemoteModel(linear_service.url)


def put_keys(service, client):
    keys = client.evaluation_keys()
    return requests.put(f"{service.url}/v1/keys/{client.key_id}", data=keys, timeout=60)


def post(service, body, **kwargs):
    return requests.post(f"{service.url}/v1/predict", data=body, timeout=60, **kwargs)


# ---------------------------------------------------------------------- predictions


def test_a_remote_model_predicts_what_the_model_predicts(remote, deployed_pipeline, labelled_rows):
    X, y = labelled_rows
    np.testing.assert_array_equal(remote.predict(X[:20]), deployed_pipeline.predict(X[:20]))
    np.testing.assert_array_equal(
        remote.predict_proba(X[:2]), deployed_pipeline.predict_proba(X[:2])
    )
    np.testing.assert_array_equal(remote.classes_, deployed_pipeline.classes_)
    weights = np.arange(5)
    expected = deployed_pipeline.score(X[:5], y[:5], sample_weight=weights)
    assert remote.score(X[:5], y[:5], sample_weight=weights) == expected


def test_progress_is_shown_when_asked(linear_service, labelled_rows, capfd):
    remote = RemoteModel(linear_service.url, verbose=1)
    remote.url, url = remote.url.replace("//", "//me:password@"), remote.url
    assert repr(remote) == f"<RemoteModel: {url}, {remote.client_._summary()}>"
    remote.url = url
    assert "Generating keys..." in capfd.readouterr().err
    remote.upload_keys()
    remote.predict(labelled_rows[0][:3])
    shown = capfd.readouterr().err
    assert "Uploading evaluation keys..." in shown
    assert "Rows: 100%" in shown
    remote.verbose = 0
    remote.predict(labelled_rows[0][:3])
    assert capfd.readouterr().err == ""


CLIENTS = """
import sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from cipherlearn.deployment import RemoteModel

url, rows, predictions, n_clients = sys.argv[1:]
X = np.load(rows)
models = [RemoteModel(url) for _ in range(int(n_clients))]
assert len({model.client_.key_id for model in models}) == len(models)
with ThreadPoolExecutor(len(models)) as threads:
    np.save(predictions, list(threads.map(lambda model: model.predict(X), models)))
"""


def test_eight_clients_at_once_get_their_own_predictions(
    tmp_path, service, deployed_pipeline, labelled_rows
):
    X = labelled_rows[0][:3]
    np.save(tmp_path / "rows.npy", X)
    arguments = [service.url, str(tmp_path / "rows.npy"), str(tmp_path / "predictions.npy"), "8"]
    result = subprocess.run(
        [sys.executable, "-c", CLIENTS, *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    predictions = np.load(tmp_path / "predictions.npy")
    assert predictions.shape == (8, 3)
    np.testing.assert_array_equal(predictions, np.tile(deployed_pipeline.predict(X), (8, 1)))


def test_what_a_client_may_know_is_described(service, artefacts, remote):
    described = requests.get(f"{service.url}/v1/model", timeout=10).json()
    assert described["model_id"] == remote.client_.model_id
    assert described["classes"]["values"] == ["ant", "bee", "cow"]
    assert described["error_probability"]["p_error"] == 2.0**-40
    (ciphertext,) = remote.client_.encrypt([[0.0] * 4])
    assert described["message_bytes"]["ciphertext"] == len(ciphertext)
    downloaded = requests.get(f"{service.url}/v1/client.zip", timeout=10).content
    assert downloaded == (artefacts / "client.zip").read_bytes()


def test_the_interface_is_documented(service):
    schema = requests.get(f"{service.url}/openapi.json", timeout=10).json()
    assert set(schema["paths"]) == {
        "/health",
        "/metrics",
        "/v1/model",
        "/v1/client.zip",
        "/v1/keys/{key_id}",
        "/v1/predict",
    }
    content = schema["paths"]["/v1/predict"]["post"]["requestBody"]["content"]
    assert "application/octet-stream" in content
    assert "swagger" in requests.get(f"{service.url}/docs", timeout=10).text


# ---------------------------------------------------------------------- refusals


def test_the_model_can_be_pinned(service):
    with pytest.raises(ArtefactError, match="must have the model 0000"):
        RemoteModel(service.url, model_id="0000")


def test_unknown_keys_are_named_and_then_uploaded(linear_service, linear_artefacts, labelled_rows):
    client = FHEClient(linear_artefacts / "client.zip")
    client.generate_keys()
    (ciphertext,) = client.encrypt(labelled_rows[0][:1])
    response = post(linear_service, ciphertext)
    assert response.status_code == 404
    assert client.key_id in response.json()["detail"]
    url = f"{linear_service.url}/v1/keys/{client.key_id}"
    assert requests.get(url, timeout=10).status_code == 404
    assert put_keys(linear_service, client).status_code == 201
    assert requests.get(url, timeout=10).status_code == 200
    assert post(linear_service, ciphertext).status_code == 200
    assert requests.delete(url, timeout=10).status_code == 204
    assert requests.delete(url, timeout=10).status_code == 404


def test_keys_of_another_model_are_refused(service, linear_service, linear_client, client):
    for target, wrong in ((service, linear_client), (linear_service, client)):
        response = put_keys(target, wrong)
        assert response.status_code in (400, 413)
        key_id = wrong.key_id
        assert requests.get(f"{target.url}/v1/keys/{key_id}", timeout=10).status_code == 404


def test_keys_under_another_name_are_refused(linear_service, linear_client):
    url = f"{linear_service.url}/v1/keys/"
    keys = linear_client.evaluation_keys()
    for name in ("0" * 64, linear_client.key_id.upper(), "..%2f..%2fetc", "x"):
        response = requests.put(url + name, data=keys, timeout=10)
        assert response.status_code in (400, 404)
    assert put_keys(linear_service, linear_client).status_code == 201


@pytest.mark.parametrize("body", [b"", b"x", bytes(1000)])
def test_a_body_that_holds_no_whole_ciphertexts_is_refused(service, body):
    response = post(service, body)
    assert response.status_code == 400
    assert "one or more ciphertexts of" in response.json()["detail"]


def test_a_large_body_is_refused_early(linear_artefacts, tmp_path, linear_client):
    flags = ("--max-body-bytes", "5000")
    with Service(linear_artefacts / "server.zip", tmp_path / "keys", *flags) as service:
        response = post(service, bytes(6000))
        assert response.status_code == 413
        assert "5000 bytes" in response.json()["detail"]
        # Without a length, as it arrives.
        response = post(service, (bytes(1000) for _ in range(100)))
        assert response.status_code == 413
        url = f"{service.url}/v1/keys/{linear_client.key_id}"
        keys = linear_client.evaluation_keys()
        assert requests.put(url, data=keys + b"x", timeout=10).status_code == 413
        assert service.is_healthy()


def test_a_slow_body_times_out(linear_artefacts, tmp_path):
    flags = ("--body-timeout", "1")
    with Service(linear_artefacts / "server.zip", tmp_path / "keys", *flags) as service:
        host, port = service.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(
                b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nslow"
            )
            assert b"408" in connection.recv(1000)


def test_a_token_is_needed_where_one_is_set(linear_artefacts, tmp_path, labelled_rows):
    server_zip = linear_artefacts / "server.zip"
    with Service(server_zip, tmp_path / "keys", token="secret token") as service:
        for path in ("/v1/predict", "/v1/keys/" + "0" * 64):
            for method in ("PUT", "POST", "DELETE"):
                response = requests.request(method, service.url + path, data=b"x", timeout=10)
                assert response.status_code in (401, 405)
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic c2VjcmV0"}):
            for path in ("/v1/model", "/v1/client.zip", "/metrics", "/v1/keys/" + "0" * 64):
                response = requests.get(service.url + path, headers=headers, timeout=10)
                assert response.status_code == 401
        assert service.is_healthy()
        with pytest.raises(RemoteError, match="401: A valid bearer token"):
            RemoteModel(service.url, token="wrong")
        remote = RemoteModel(service.url, token="secret token")
        assert len(remote.predict(labelled_rows[0][:3])) == 3
        assert "secret token" not in service.log_path.read_text()


def test_a_service_that_is_not_there_is_named():
    with pytest.raises(RemoteError, match="did not answer in 2 tries"):
        RemoteModel("http://127.0.0.1:9", n_retries=1)
    with pytest.raises(RemoteError, match="in 1 tries"):
        RemoteModel("no address")


def test_settings_that_cannot_work_are_refused(linear_artefacts, tmp_path):
    server_zip = linear_artefacts / "server.zip"
    with pytest.raises(ValueError, match=r"n_workers must be an integer of at least 1\. Got 0"):
        ServiceSettings(server_zip, tmp_path, n_workers=0)
    with pytest.raises(ValueError, match="token must not be empty"):
        ServiceSettings(server_zip, tmp_path, token="")
    with pytest.raises(ValueError, match="max_body_bytes must hold one message"):
        create_app(ServiceSettings(server_zip, tmp_path, max_body_bytes=10))
    with pytest.raises(ArtefactError):
        create_app(ServiceSettings(linear_artefacts / "client.zip", tmp_path))


# ---------------------------------------------------------------------- fuzzing


def mutated(rng, body):
    """Change, cut or extend bytes somewhere."""
    body = bytearray(body)
    change = rng.randrange(4)
    if change == 0:
        for _ in range(rng.randrange(1, 8)):
            body[rng.randrange(len(body))] = rng.randrange(256)
    elif change == 1:
        del body[rng.randrange(len(body)) :]
    elif change == 2:
        body += rng.randbytes(rng.randrange(1, 600))
    else:
        start = rng.randrange(len(body))
        body[start : start + 64] = rng.randbytes(64)
    return bytes(body)


def fuzzed_request(rng, client, ciphertext):
    """A method, path and body that no client of ours would send."""
    message = Message.from_bytes(ciphertext, Kind.CIPHERTEXT)
    kind = rng.randrange(8)
    if kind == 0:
        return "POST", "/v1/predict", rng.randbytes(rng.randrange(3000))
    if kind == 1:
        return "POST", "/v1/predict", mutated(rng, ciphertext)
    if kind == 2:
        # Checksums that fit, numbers that do not.
        payload = rng.randbytes(len(message.payload))
        fitting = Message(Kind.CIPHERTEXT, message.scope, message.key, payload)
        return "POST", "/v1/predict", fitting.to_bytes()
    if kind == 3:
        payload = mutated(rng, message.payload)
        fitting = Message(rng.choice(list(Kind)), message.scope, message.key, payload)
        return "POST", "/v1/predict", fitting.to_bytes()
    if kind == 4:
        name = rng.choice([client.key_id, "0" * 64, rng.randbytes(9).hex(), "../x", "%00", "é"])
        return rng.choice(["PUT", "GET", "DELETE"]), f"/v1/keys/{name}", rng.randbytes(300)
    if kind == 5:
        return rng.choice(["GET", "PUT", "PATCH", "TRACE"]), "/v1/predict", rng.randbytes(10)
    if kind == 6:
        path = "/" + "".join(rng.choices("abcdefg/.%?&=#\\é ", k=rng.randrange(60)))
        return rng.choice(["GET", "POST"]), path, rng.randbytes(20)
    return "POST", "/v1/predict", ciphertext * rng.randrange(2, 4) + rng.randbytes(8)


def raw_request(service, data):
    """Send bytes that need be no HTTP, and read what comes."""
    host, port = service.url.removeprefix("http://").split(":")
    with (
        socket.create_connection((host, int(port)), timeout=20) as connection,
        contextlib.suppress(ConnectionError),
    ):
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(10_000):
            pass


def test_a_thousand_fuzzed_requests_crash_nothing(
    service, artefacts, deployed_pipeline, labelled_rows
):
    X, _ = labelled_rows
    client = FHEClient(artefacts / "client.zip")
    client.generate_keys()
    assert put_keys(service, client).status_code == 201
    (ciphertext,) = client.encrypt(X[:1])
    rng = random.Random(0)
    workers, restarts = service.worker_ids(), service.metric("cipherlearn_worker_restarts_total")
    assert len(workers) == 1
    statuses = Counter()
    session = requests.Session()
    for i in range(1000):
        if i % 10 == 9:
            start = rng.choice([b"", b"POST /v1/predict HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: "])
            raw_request(service, start + rng.randbytes(rng.randrange(500)))
            continue
        method, path, body = fuzzed_request(rng, client, ciphertext)
        response = session.request(method, service.url + path, data=body, timeout=60)
        statuses[response.status_code] += 1
        if method == "DELETE" and response.status_code == 204:
            assert put_keys(service, client).status_code == 201
    assert not [status for status in statuses if status >= 500], statuses
    # Well-formed nonsense is computed, as a server that sees nothing must.
    assert statuses[200] > 50
    assert statuses[400] > 200
    assert service.worker_ids() == workers
    assert service.metric("cipherlearn_worker_restarts_total") == restarts
    results = post(service, ciphertext).content
    (label,) = client.labels(client.decrypt([results], 1))
    assert label == deployed_pipeline.predict(X[:1])[0]


def test_keys_of_nonsense_compute_nonsense(service, client, labelled_rows):
    (ciphertext,) = client.encrypt(labelled_rows[0][:1])
    sent = Message.from_bytes(ciphertext, Kind.CIPHERTEXT)
    keys = Message.from_bytes(client.evaluation_keys(), Kind.EVALUATION_KEYS)
    rng = np.random.default_rng(0)
    for kind in range(3):
        payload = bytearray(keys.payload)
        if kind == 0:
            payload = rng.bytes(len(payload))
        elif kind == 1:
            payload = bytes(len(payload))
        else:
            payload[1000:100_000] = rng.bytes(99_000)
        nonsense = Message(Kind.EVALUATION_KEYS, keys.scope, keys.key, bytes(payload)).to_bytes()
        key_id = hashlib.sha256(nonsense)
        url = f"{service.url}/v1/keys/{key_id.hexdigest()}"
        assert requests.put(url, data=nonsense, timeout=60).status_code == 201
        under_it = Message(Kind.CIPHERTEXT, sent.scope, key_id.digest(), sent.payload)
        assert post(service, under_it.to_bytes()).status_code == 200
    assert service.is_healthy()


# ---------------------------------------------------------------------- nothing lost


def partial_upload(service, client, n_bytes):
    """Begin to upload keys, and go away."""
    keys = client.evaluation_keys()
    host, port = service.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    head = (
        f"PUT /v1/keys/{client.key_id} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(keys)}\r\n\r\n"
    )
    connection.sendall(head.encode() + keys[:n_bytes])
    return connection


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


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
        remote = RemoteModel(service.url)
        port = service.url.rpartition(":")[2]
        rows = np.tile(X, (10, 1))
        with ThreadPoolExecutor(1) as thread:
            future = thread.submit(remote.predict, rows)
            wait_until(lambda: service.metric("cipherlearn_evaluations_total") > 20)
            service.process.kill()
            service.process.wait()
            with Service(server_zip, data_dir, "--port", port):
                np.testing.assert_array_equal(future.result(60), deployed_linear.predict(rows))


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


# ---------------------------------------------------------------------- limits


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
        head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
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


def test_a_disk_that_fails_is_an_error_of_the_service(tmp_path, linear_artefacts, linear_client):
    with Service(linear_artefacts / "server.zip", tmp_path / "keys") as service:
        shutil.rmtree(service.data_dir)
        response = put_keys(service, linear_client)
        assert response.status_code == 507
        assert service.is_healthy()


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
    size = len(clients[0].evaluation_keys())
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
    room_for_one = ("--max-key-store-bytes", str(len(client.evaluation_keys())))
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
    with Service(linear_artefacts / "server.zip", tmp_path / "keys", "--max-loaded-keys", "1") as s:
        remote = RemoteModel(s.url)
        remote.upload_keys()
        real, calls = remote._session.send, []

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

        remote._session.send = forgetting
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


# ---------------------------------------------------------------------- secrets


class Recorder:
    """A proxy that keeps what passes in both directions."""

    def __init__(self, url):
        host, port = url.removeprefix("http://").split(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.traffic = bytearray()
        self._sockets = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._sockets += [near, far]
                for a, b in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(a, b), daemon=True).start()

    def _pass(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.traffic += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self):
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def secret_patterns(client):
    """Parts of the secret keys in every form in which they might leak."""
    words = np.frombuffer(client._exchange.keys.runtime.secret_keys(), "<u8")
    edges = np.flatnonzero(np.diff(words <= 1, prepend=False, append=False)).reshape(-1, 2)
    runs = [words[start:end] for start, end in edges if end - start > 500]
    assert runs, "the secret keys were not found in their own serialization"
    patterns = [client._exchange.keys.runtime.secret_keys()[-64:]]
    for run in runs:
        for start in range(0, len(run) - 256, 128):
            bits = run[start : start + 256].astype(np.uint8)
            patterns += [
                run[start : start + 32].tobytes(),
                run[start : start + 32].byteswap().tobytes(),
                bits[:64].tobytes(),
                np.packbits(bits).tobytes(),
                np.packbits(bits, bitorder="little").tobytes(),
            ]
    return patterns


def test_no_secret_reaches_the_server(tmp_path, artefacts, labelled_rows):
    X, _ = labelled_rows
    with Service(artefacts / "server.zip", tmp_path / "keys") as service:
        recorder = Recorder(service.url)
        remote = RemoteModel(recorder.url)
        remote.predict(X[:2])
        recorder.close()
        patterns = secret_patterns(remote.client_)
        assert len(patterns) > 50
        (stored,) = (path for path in service.data_dir.iterdir() if path.name != ".lock")
        places = {
            "traffic": bytes(recorder.traffic),
            "artefact": (artefacts / "server.zip").read_bytes(),
            "stored keys": stored.read_bytes(),
            "logs": service.log_path.read_bytes(),
        }
    # The search would find the keys where they are.
    assert all(
        pattern in remote.client_._exchange.keys.runtime.secret_keys() for pattern in patterns[1::5]
    )
    assert len(places["traffic"]) > len(places["stored keys"])
    for place, content in places.items():
        assert not any(pattern in content for pattern in patterns), place


def test_logs_are_json_without_payloads(tmp_path, linear_artefacts, labelled_rows):
    with Service(linear_artefacts / "server.zip", tmp_path / "keys") as service:
        RemoteModel(service.url).predict(labelled_rows[0][:4])
        records = [record for record in service.logs() if record["event"] == "request"]
        (predicted,) = [record for record in records if record["path"] == "/v1/predict"][-1:]
        assert predicted["status"] == 200
        assert predicted["bytes_in"] > 0
        assert predicted["bytes_out"] > predicted["bytes_in"]
        assert set(predicted) == {
            "time",
            "level",
            "logger",
            "event",
            "request_id",
            "client",
            "method",
            "path",
            "ms",
            "bytes_in",
            "bytes_out",
            "status",
        }
        assert max(len(line) for line in service.log_path.read_text().splitlines()) < 1000


def test_tls_is_served(tmp_path, linear_artefacts, deployed_linear, labelled_rows):
    X, _ = labelled_rows
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    _write_certificate(key, certificate)
    flags = ("--tls-key", str(key), "--tls-certificate", str(certificate))
    with Service(linear_artefacts / "server.zip", tmp_path / "keys", *flags) as service:
        assert service.url.startswith("https://")
        url = service.url.replace("127.0.0.1", "localhost")
        with pytest.raises(RemoteError, match="certificate"):
            RemoteModel(url, n_retries=0)
        with RemoteModel(url, verify=certificate) as remote:
            np.testing.assert_array_equal(remote.predict(X[:3]), deployed_linear.predict(X[:3]))


def _write_certificate(key_path, certificate_path):
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def test_a_failure_of_the_engine_is_not_the_clients_fault():
    class Server:
        def run(self, ciphertext):
            raise {b"bad": MessageError, b"engine": RuntimeError}[ciphertext]("a reason")

    assert _pool._answer(Server(), b"bad").startswith(b'{"type": "MessageError"')
    assert _pool._answer(Server(), b"engine").startswith(b'{"type": "EvaluationError"')
    assert _app._status(_pool.EvaluationError()) == 500
    assert _app._status(MessageError()) == 400
