"""Strangers can neither take all connections of a service, nor make it wait for ever."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import sys
import time

import numpy as np
import pytest
import requests
from serving import Service, is_closed, needs_proc, wait_until

from cipherlearn.deployment import RemoteModel
from cipherlearn.deployment.service._connections import (
    ConnectionLimits,
    peer_of,
)

# Addresses of the loopback other than 127.0.0.1.
pytestmark = [
    needs_proc,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="127.0.0.2 is Linux's"),
]

HALF_A_HEAD = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Wait"
POST = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
THREE_PEERS = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
SMALL = ("--max-connections", "12", "--max-peer-connections", "4", "--header-timeout", "60")


@contextlib.contextmanager
def half_open(service, n_each, peers, data=HALF_A_HEAD):
    """Hold connections that have sent a part of their request's head."""
    with contextlib.ExitStack() as stack:
        connections = []
        for peer in peers:
            for _ in range(n_each):
                connections.append(stack.enter_context(service.connect(peer)))
                with contextlib.suppress(ConnectionError):  # it may have had to go
                    connections[-1].sendall(data)
        yield connections


def one_health(service, peer="127.0.0.1"):
    with service.connect(peer) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return connection.recv(1000).startswith(b"HTTP/1.1 200")


# ---------------------------------------------------------------------- places


@pytest.mark.parametrize(
    "peers", [["127.0.0.1"], [f"127.0.0.{i}" for i in range(2, 8)]], ids=["one", "six"]
)
def test_600_half_open_connections_do_not_stop_a_service(
    tmp_path, linear_artefacts, deployed_linear, labelled_rows, peers
):
    X, _ = labelled_rows
    with (
        Service(linear_artefacts / "server.zip", tmp_path / "keys", token="t") as service,
        half_open(service, 600 // len(peers), peers),
    ):
        assert one_health(service)
        with RemoteModel(service.url, token="t", n_retries=0) as remote:
            predicted = remote.predict(X[:3])
        np.testing.assert_array_equal(predicted, deployed_linear.predict(X[:3]))


def test_a_burst_of_connections_does_not_take_all_files(tmp_path, linear_artefacts):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # As many as a shell gives. The burst needs more, and the service must not.
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        service = Service(linear_artefacts / "server.zip", tmp_path / "keys")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    with service, contextlib.ExitStack() as stack:
        # All at once, as the service sees it.
        service.process.send_signal(signal.SIGSTOP)
        for _ in range(2500):
            connection = stack.enter_context(socket.socket())
            connection.bind(("127.0.0.2", 0))
            connection.setblocking(False)
            connection.connect_ex(service.address)
        service.process.send_signal(signal.SIGCONT)
        assert one_health(service)
        assert not [log for log in service.logs() if log["level"] == "ERROR"]
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_handshakes_that_never_end_do_not_stop_a_service(tmp_path, linear_artefacts):
    from test_service_secrets import _write_certificate

    _write_certificate(tmp_path / "key.pem", tmp_path / "certificate.pem")
    tls = ("--tls-key", str(tmp_path / "key.pem"), "--tls-certificate")
    flags = (*tls, str(tmp_path / "certificate.pem"), *SMALL)
    with Service(linear_artefacts / "server.zip", tmp_path / "keys", *flags) as service:
        url = service.url.replace("127.0.0.1", "localhost")
        with half_open(service, 4, THREE_PEERS, data=b"\x16\x03\x01") as held:  # begins a record
            trusted = tmp_path / "certificate.pem"
            assert requests.get(f"{url}/health", verify=trusted, timeout=10).ok
            assert is_closed(held[0])
            assert not is_closed(held[-1], 0.2)


def test_the_connection_that_waited_longest_gives_way(tmp_path, linear_artefacts):
    with (
        Service(linear_artefacts / "server.zip", tmp_path / "keys", *SMALL) as service,
        half_open(service, 4, THREE_PEERS) as held,
    ):
        assert one_health(service)
        assert is_closed(held[0])
        assert not any(is_closed(each, 0.1) for each in held[1:])
        # A peer that has its share takes from itself alone.
        with service.connect("127.0.0.4"):
            assert is_closed(held[8])
            assert not any(is_closed(each, 0.1) for each in held[1:8])
        assert service.metric("cipherlearn_connections_dropped_total") >= 2


def test_requests_in_progress_do_not_give_way(tmp_path, linear_artefacts):
    flags = (*SMALL, "--max-pending", "16")
    with (
        Service(linear_artefacts / "server.zip", tmp_path / "keys", *flags) as service,
        half_open(service, 4, ["127.0.0.2"], POST) as held,
    ):
        wait_until(lambda: service.metric("cipherlearn_pending") == 4)
        with service.connect("127.0.0.2") as one_more:
            assert is_closed(one_more, 5)
        for each in held:
            each.sendall(b"too short")
            assert each.recv(1000).startswith(b"HTTP/1.1 400")


def test_one_peer_cannot_take_all_predictions(tmp_path, linear_artefacts):
    flags = ("--max-pending", "4")
    with (
        Service(linear_artefacts / "server.zip", tmp_path / "keys", *flags) as service,
        half_open(service, 2, ["127.0.0.2"], POST),
    ):
        wait_until(lambda: service.metric("cipherlearn_pending") == 2)
        answers = []
        for peer in ("127.0.0.2", "127.0.0.3"):
            with service.connect(peer) as connection:
                connection.sendall(POST + b"too short")
                answers.append(connection.recv(1000)[9:12])
        assert answers == [b"503", b"400"]


def test_strangers_take_no_slot(tmp_path, linear_artefacts):
    flags = ("--max-pending", "1", "--header-timeout", "60")
    with (
        Service(linear_artefacts / "server.zip", tmp_path / "keys", *flags, token="t") as service,
        # So many answers that nobody reads them all.
        half_open(service, 1, ["127.0.0.2"], b"") as (connection,),
    ):
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                connection.send(POST.replace(b"9", b"0") * 100)
        with half_open(service, 3, ["127.0.0.3"], POST) as held:
            for each in held:
                assert each.recv(1000).startswith(b"HTTP/1.1 401")
        headers = {"Authorization": "Bearer t"}
        url = f"{service.url}/v1/predict"
        assert requests.post(url, data=b"x", headers=headers, timeout=10).status_code == 400


# ---------------------------------------------------------------------- time

FAST = ("--header-timeout", "1", "--answer-timeout", "2", "--body-timeout", "60")


@pytest.fixture(scope="module")
def impatient(linear_artefacts, tmp_path_factory):
    directory = tmp_path_factory.mktemp("impatient") / "keys"
    with Service(linear_artefacts / "server.zip", directory, *FAST, token="t") as service:
        yield service


def dribble(connection, data, seconds):
    """Send a byte now and then, and return whether the other end closes the connection."""
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            connection.sendall(data)
            time.sleep(0.2)
    except ConnectionError:
        return True
    return is_closed(connection, 0.1)


@pytest.mark.parametrize("start", [b"", b"\r\n", HALF_A_HEAD], ids=["nothing", "empty", "half"])
def test_a_head_that_does_not_arrive_is_not_waited_for(impatient, start):
    with impatient.connect() as connection:
        connection.sendall(start)
        assert is_closed(connection, 5)


def test_a_head_that_drips_is_not_waited_for(impatient):
    with impatient.connect() as connection:
        connection.sendall(HALF_A_HEAD)
        assert dribble(connection, b"x", 5)


def test_a_second_head_that_drips_is_not_waited_for(impatient):
    with impatient.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200" in connection.recv(1000)
        assert dribble(connection, b"G", 5)


def test_the_rest_of_a_refused_body_is_not_waited_for(impatient):
    with impatient.connect() as connection:
        connection.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n"
        )
        assert b"401" in connection.recv(1000)
        assert dribble(connection, b"x", 5)


def test_answers_that_nobody_reads_are_not_kept(impatient):
    request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer t\r\n\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(impatient.address)
        connection.settimeout(20)
        connection.sendall(request * 2000)
        wait_until(lambda: _is_reset(connection))


def _is_reset(connection):
    try:
        connection.send(b"x")
    except ConnectionError:
        return True
    except TimeoutError:
        pass
    return False


def test_slow_clients_within_the_limits_are_served(impatient, labelled_rows):
    remote = RemoteModel(impatient.url, token="t", n_retries=0)
    remote.upload_keys()
    (body,) = remote.client_.encrypt(labelled_rows[0][:2])
    head = (
        f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        "Authorization: Bearer t\r\nConnection: close\r\n\r\n"
    )
    with impatient.connect() as connection:
        connection.sendall(head.encode() + body[:100])
        time.sleep(2)  # longer than a head may take
        connection.sendall(body[100:])
        answer = b""
        while data := connection.recv(65536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 200")


# ---------------------------------------------------------------------- peers and proxies


def test_a_network_of_ipv6_is_one_peer():
    assert peer_of("127.0.0.1") == "127.0.0.1"
    assert peer_of("::ffff:127.0.0.1") == "127.0.0.1"
    assert peer_of("2001:db8::1") == peer_of("2001:db8::ffff:1") != peer_of("2001:db8:0:1::1")
    assert peer_of("not an address") == "not an address"


def test_only_a_named_proxy_is_believed(tmp_path, linear_artefacts):
    clients = []
    for flags in ((), ("--proxy", "127.0.0.0/8")):
        with Service(linear_artefacts / "server.zip", tmp_path / "keys", *flags) as service:
            headers = {"X-Forwarded-For": "192.0.2.7"}
            requests.get(f"{service.url}/{len(clients)}", headers=headers, timeout=10)
            service.stop()
            logs = [log for log in service.logs() if log.get("path") == f"/{len(clients)}"]
            clients += [log["client"] for log in logs]
    assert clients == ["127.0.0.1", "192.0.2.7"]


def test_a_proxy_may_have_all_connections(tmp_path, linear_artefacts):
    flags = (*SMALL, "--proxy", "127.0.0.2")
    with (
        Service(linear_artefacts / "server.zip", tmp_path / "keys", *flags) as service,
        half_open(service, 8, ["127.0.0.2"]) as held,
    ):
        assert not any(is_closed(each, 0.1) for each in held)


def test_limits_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="header_timeout must be an integer of at least 1"):
        ConnectionLimits(header_timeout=0)
    with pytest.raises(ValueError, match="A proxy must be an IP address, or a network"):
        ConnectionLimits(proxies=["nginx"])
