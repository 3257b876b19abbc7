"""The reverse proxy of ``docker/nginx.conf``, as Debian has it."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import requests
from serving import Service, is_closed, needs_proc, wait_until
from test_service_secrets import _write_certificate

from cipherlearn.deployment import FHEClient, RemoteModel

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CONFIGURATION = Path(__file__).parents[2] / "docker" / "nginx.conf"

pytestmark = [needs_proc, pytest.mark.skipif(NGINX is None, reason="there is no nginx")]


class Proxy:
    """nginx in front of a service. A context that ends it."""

    def __init__(self, directory, service):
        self.certificate = directory / "certificate.pem"
        _write_certificate(directory / "key.pem", self.certificate)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = free.getsockname()
        changes = {
            "listen 443": f"listen 127.0.0.1:{self.address[1]}",
            "server 127.0.0.1:8000": f"server 127.0.0.1:{service.address[1]}",
            "server_name model.example.org": "server_name localhost",
            "/etc/nginx": str(directory),
            # It has rights to what is the tests' alone.
            "worker_processes auto": f"pid {directory}/pid;\nworker_processes 1",
            "http {": "http {\n"
            + "".join(f"{kind}_temp_path {directory}/{kind};\n" for kind in TEMPORARY),
        }
        text = CONFIGURATION.read_text()
        for old, new in changes.items():
            assert old in text, old
            text = text.replace(old, new)
        if os.geteuid() == 0:
            text = "user root;\n" + text
        (directory / "nginx.conf").write_text(text)
        self.log = directory / "nginx.log"
        command = [NGINX, "-c", directory / "nginx.conf", "-e", self.log, "-g", "daemon off;"]
        self.process = subprocess.Popen(command)
        self.url = f"https://localhost:{self.address[1]}"
        wait_until(lambda: self.process.poll() is not None or self._listens())
        assert self.process.poll() is None, self.log.read_text()

    def _listens(self):
        with contextlib.suppress(ConnectionError), socket.create_connection(self.address):
            return True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)

    def connect(self, peer="127.0.0.1"):
        """Open an encrypted connection."""
        context = ssl.create_default_context(cafile=self.certificate)
        raw = socket.create_connection(self.address, timeout=20, source_address=(peer, 0))
        return context.wrap_socket(raw, server_hostname="localhost")


TEMPORARY = ("client_body", "proxy", "fastcgi", "scgi", "uwsgi")
TOKEN = "t" * 32


@pytest.fixture(scope="module")
def served(linear_artefacts, tmp_path_factory):
    directory = tmp_path_factory.mktemp("nginx")
    flags = ("--proxy", "127.0.0.1", "--allowed-host", "localhost", "--header-timeout", "60")
    server_zip = linear_artefacts / "server.zip"
    with (
        Service(server_zip, directory / "keys", *flags, token=TOKEN) as service,
        Proxy(directory, service) as proxy,
    ):
        yield service, proxy


def pending(service):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    text = requests.get(f"{service.url}/metrics", headers=headers, timeout=10).text
    return float(text.split("\ncipherlearn_pending ")[1].split("\n")[0])


def test_a_model_behind_it_predicts_what_the_model_predicts(served, deployed_linear, labelled_rows):
    X, _ = labelled_rows
    _, proxy = served
    with RemoteModel(proxy.url, token=TOKEN, verify=proxy.certificate, n_retries=0) as remote:
        np.testing.assert_array_equal(remote.predict(X[:40]), deployed_linear.predict(X[:40]))


def test_600_half_open_connections_do_not_stop_it(served):
    _, proxy = served
    with contextlib.ExitStack() as stack:
        for i in range(600):
            raw = socket.create_connection(
                proxy.address, source_address=(f"127.0.0.{2 + i % 6}", 0)
            )
            stack.enter_context(raw).sendall(b"\x16\x03\x01")
        for _ in range(60):
            connection = stack.enter_context(proxy.connect("127.0.0.9"))
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Wait")
        assert requests.get(f"{proxy.url}/health", verify=proxy.certificate, timeout=10).ok


def test_the_service_gets_whole_predictions_alone(served):
    service, proxy = served
    with proxy.connect() as connection:
        connection.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n"
            b"Authorization: Bearer " + TOKEN.encode() + b"\r\nConnection: close\r\n\r\n"
        )
        for _ in range(9):
            connection.sendall(b"x")
            time.sleep(0.05)
            assert pending(service) == 0
        connection.sendall(b"x")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "request_line", [b"POST /v1/predict", b"PUT /v1/keys/" + b"0" * 64], ids=["predict", "keys"]
)
@pytest.mark.parametrize("token", [b"", b"Authorization: Bearer other\r\n"], ids=["none", "other"])
def test_strangers_are_refused_before_their_body_is_read(served, request_line, token):
    _, proxy = served
    with proxy.connect() as connection:
        connection.sendall(
            request_line + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n" + token
        )
        connection.sendall(b"Expect: 100-continue\r\n\r\n")
        answer = connection.recv(1000)
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"www-authenticate: bearer" in answer.lower()


@pytest.mark.parametrize("path", ["/v1/model", "/v1/predict/", "/health", "/nothing"])
def test_bodies_that_nothing_needs_are_refused_before_they_are_read(served, path):
    _, proxy = served
    with proxy.connect() as connection:
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n".encode()
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")


def test_keys_may_be_larger_than_predictions(served):
    _, proxy = served
    url, headers = f"{proxy.url}/v1/keys/{'0' * 64}", {"Authorization": f"Bearer {TOKEN}"}
    with requests.put(
        url, bytes(20_000_000), headers=headers, verify=proxy.certificate, timeout=20
    ) as answer:
        assert answer.status_code == 413
        # The service says so, whose keys are small, and not the proxy.
        assert "This one has more" in answer.json()["detail"]


def test_keys_are_passed_on_as_they_arrive(served, linear_artefacts):
    service, proxy = served
    client = FHEClient(linear_artefacts / "client.zip")
    client.generate_keys()
    keys = client.evaluation_keys()
    with proxy.connect() as connection:
        connection.sendall(
            f"PUT /v1/keys/{client.key_id} HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Length: {len(keys)}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
        )
        connection.sendall(keys[:-1])
        wait_until(lambda: list(service.data_dir.glob(f"{client.key_id}.*.part")))
        connection.sendall(keys[-1:])
        assert connection.recv(1000).startswith(b"HTTP/1.1 201")
    assert (service.data_dir / client.key_id).read_bytes() == keys


@pytest.mark.parametrize(
    ("path", "n", "others"),
    [(b"/v1/model", 50, b"503"), (b"/v1/predict", 16, b"200")],
    ids=["requests", "predictions"],
)
def test_one_address_has_a_share_of_connections(served, path, n, others):
    _, proxy = served
    head = b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n"
    head += b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n"
    health = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(n):
            stack.enter_context(proxy.connect("127.0.0.3")).sendall(head)
        time.sleep(0.5)  # nginx takes each when it has read its head
        for peer, request, status in (
            ("127.0.0.3", head, b"503"),
            ("127.0.0.3", health, others),
            ("127.0.0.4", health, b"200"),
        ):
            with proxy.connect(peer) as connection:
                connection.sendall(request)
                assert connection.recv(1000).startswith(b"HTTP/1.1 " + status)


def test_the_service_knows_who_asks(served):
    service, proxy = served
    with proxy.connect("127.0.0.7") as connection:
        connection.sendall(
            b"GET /who HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 401")
    wait_until(lambda: any(log.get("path") == "/who" for log in service.logs()))
    (asked,) = [log for log in service.logs() if log.get("path") == "/who"]
    assert asked["client"] == "127.0.0.7"


def test_other_names_and_what_is_not_for_clients_are_refused(served):
    _, proxy = served
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(proxy.address) as raw,
        pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"),
    ):
        context.wrap_socket(raw, server_hostname="evil.example")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    ask = {"headers": headers, "verify": proxy.certificate, "timeout": 10}
    for path in ("/metrics", "/metrics%0A", "/metrics%0a%0d", "/v1/../metrics%0A", "/v1/keys/x%00"):
        answer = requests.get(f"{proxy.url}{path}", **ask)
        assert answer.status_code in (400, 404)
        assert "nginx" in answer.text  # the service was not asked
    assert requests.get(f"{proxy.url}/v1/model", **ask).status_code == 200
    for n_bytes, status in ((16_000_000, 400), (16_000_001, 413)):
        answer = requests.post(f"{proxy.url}/v1/predict", data=bytes(n_bytes), **ask)
        assert answer.status_code == status


def test_heads_that_do_not_arrive_are_not_waited_for(served):
    _, proxy = served
    with proxy.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Wait")
        assert is_closed(connection, 15)
