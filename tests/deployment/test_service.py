"""A real server in one process and clients in others: predictions and refusals."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import requests
from serving import Service, needs_proc, post, put_keys

from cipherlearn.deployment import ArtefactError, FHEClient, MessageError, RemoteError, RemoteModel
from cipherlearn.deployment._messages import Kind, Message
from cipherlearn.deployment.service import ServiceSettings, _refusals, _worker, create_app

pytestmark = needs_proc


@pytest.fixture(scope="module")
def remote(service):
    return RemoteModel(service.url)


@pytest.fixture
def linear_remote(linear_service):
    return RemoteModel(linear_service.url)


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
    url = linear_service.url
    remote = RemoteModel(url.replace("//", "//me:password@"), verbose=1)
    assert repr(remote) == f"<RemoteModel: {url}, {remote.client_._summary()}>"
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

rows, predictions, *urls = sys.argv[1:]
X = np.load(rows)
models = [RemoteModel(url) for url in urls]
assert len({model.client_.key_id for model in models}) == len(models)
with ThreadPoolExecutor(len(models)) as threads:
    np.save(predictions, list(threads.map(lambda model: model.predict(X), models)))
"""


def test_clients_at_once_get_their_own_predictions(
    tmp_path, service, deployed_pipeline, linear_service, deployed_linear, labelled_rows
):
    X = labelled_rows[0][:3]
    np.save(tmp_path / "rows.npy", X)
    urls = [service.url] * 2 + [linear_service.url] * 6
    arguments = [str(tmp_path / "rows.npy"), str(tmp_path / "predictions.npy"), *urls]
    result = subprocess.run(
        [sys.executable, "-c", CLIENTS, *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    predictions = np.load(tmp_path / "predictions.npy")
    expected = [deployed_pipeline.predict(X)] * 2 + [deployed_linear.predict(X)] * 6
    np.testing.assert_array_equal(predictions, expected)


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


def model_of(service):
    return requests.get(f"{service.url}/v1/model", timeout=10).json()


def test_keys_of_another_model_are_refused(service, linear_service, linear_client, client):
    sizes = [len(each.evaluation_keys()) for each in (linear_client, client)]
    assert sizes[0] < sizes[1]
    shorter, longer = put_keys(service, linear_client), put_keys(linear_service, client)
    assert (shorter.status_code, longer.status_code) == (400, 413)
    for each in (service, linear_service):
        assert model_of(each)["keyset_id"] in shorter.json()["detail"]
    assert f"may have {sizes[0]} bytes" in longer.json()["detail"]
    for target, wrong in ((service, linear_client), (linear_service, client)):
        url = f"{target.url}/v1/keys/{wrong.key_id}"
        assert requests.get(url, timeout=10).status_code == 404


def test_ciphertexts_of_another_model_are_refused(linear_service, linear_client, labelled_rows):
    (ciphertext,) = linear_client.encrypt(labelled_rows[0][:1])
    message = Message.from_bytes(ciphertext, Kind.CIPHERTEXT)
    # The header names the model first. One of another length could not even be cut out of a body.
    other = post(linear_service, replace(message, scope=bytes(range(32))).to_bytes())
    assert other.status_code == 400
    for model_id in (linear_client.model_id, bytes(range(32)).hex()):
        assert model_id in other.json()["detail"]
    longer = post(linear_service, replace(message, payload=message.payload + bytes(8)).to_bytes())
    assert longer.status_code == 400
    assert f"ciphertexts of {len(ciphertext)} bytes" in longer.json()["detail"]


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
    flags = ("--max-body-bytes", "9000")
    with Service(linear_artefacts / "server.zip", tmp_path / "keys", *flags) as service:
        response = post(service, bytes(10_000))
        assert response.status_code == 413
        assert "9000 bytes" in response.json()["detail"]
        # Without a length, as it arrives.
        response = post(service, (bytes(1000) for _ in range(100)))
        assert response.status_code == 413
        url = f"{service.url}/v1/keys/{linear_client.key_id}"
        keys = linear_client.evaluation_keys()
        assert requests.put(url, data=keys + b"x", timeout=10).status_code == 413
        assert service.is_healthy()


@pytest.mark.parametrize("request_line", ["POST /v1/predict", f"PUT /v1/keys/{'0' * 64}"])
def test_a_slow_body_times_out(linear_artefacts, tmp_path, request_line):
    flags = ("--body-timeout", "1")
    with Service(linear_artefacts / "server.zip", tmp_path / "keys", *flags) as service:
        host, port = service.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            head = f"{request_line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 144\r\n\r\n"
            connection.sendall(head.encode() + b"slow")
            assert connection.recv(1000).startswith(b"HTTP/1.1 408")
        assert [path.name for path in service.data_dir.iterdir()] == [".lock"]


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
    with pytest.raises(ValueError, match=r"must be such as https://example\.org"):
        RemoteModel("no address")


def test_settings_that_cannot_work_are_refused(linear_artefacts, tmp_path):
    server_zip = linear_artefacts / "server.zip"
    with pytest.raises(ValueError, match=r"n_workers must be an integer of at least 1\. Got 0"):
        ServiceSettings(server_zip, tmp_path, n_workers=0)
    with pytest.raises(ValueError, match="token must not be empty"):
        create_app(ServiceSettings(server_zip, tmp_path, tokens=[""]))
    with pytest.raises(ValueError, match="max_body_bytes must hold one message"):
        create_app(ServiceSettings(server_zip, tmp_path, max_body_bytes=10))
    with pytest.raises(ArtefactError):
        create_app(ServiceSettings(linear_artefacts / "client.zip", tmp_path))


def test_a_failure_of_the_engine_is_not_the_clients_fault():
    class Server:
        def run(self, ciphertext):
            raise {b"bad": MessageError, b"engine": RuntimeError}[ciphertext]("a reason")

    assert _worker._answer(Server(), b"bad").startswith(b'{"type": "MessageError"')
    assert _worker._answer(Server(), b"engine").startswith(b'{"type": "EvaluationError"')
    assert _refusals.status_of(_worker.EvaluationError()) == 500
    assert _refusals.status_of(MessageError()) == 400
