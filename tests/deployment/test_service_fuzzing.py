"""A service computes or refuses whatever it is sent."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
from collections import Counter

import numpy as np
import pytest
import requests
from serving import needs_proc, post, put_keys

from cipherlearn.deployment import FHEClient
from cipherlearn.deployment._messages import Kind, Message

pytestmark = needs_proc


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


def send_fuzzed(service, client, ciphertext, n_requests):
    """Send what no client would, and count the statuses."""
    rng = random.Random(0)
    statuses = Counter()
    session = requests.Session()
    for i in range(n_requests):
        if i % 10 == 9:
            start = rng.choice([b"", b"POST /v1/predict HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: "])
            raw_request(service, start + rng.randbytes(rng.randrange(500)))
            continue
        method, path, body = fuzzed_request(rng, client, ciphertext)
        response = session.request(method, service.url + path, data=body, timeout=60)
        statuses[response.status_code] += 1
        if method == "DELETE" and response.status_code == 204:
            assert put_keys(service, client).status_code == 201
    return statuses


# Nine evaluations in ten without bootstraps take a fraction of the time.
@pytest.mark.parametrize(("kind", "n_requests"), [("linear", 900), ("pipeline", 100)])
def test_a_thousand_fuzzed_requests_crash_nothing(request, labelled_rows, kind, n_requests):
    X, _ = labelled_rows
    prefix = "" if kind == "pipeline" else "linear_"
    service = request.getfixturevalue(f"{prefix}service")
    directory = request.getfixturevalue(f"{prefix}artefacts")
    model = request.getfixturevalue(f"deployed_{kind}")
    client = FHEClient(directory / "client.zip")
    client.generate_keys()
    assert put_keys(service, client).status_code == 201
    (ciphertext,) = client.encrypt(X[:1])
    workers, restarts = service.worker_ids(), service.metric("cipherlearn_worker_restarts_total")
    assert len(workers) == 1
    statuses = send_fuzzed(service, client, ciphertext, n_requests)
    assert not [status for status in statuses if status >= 500], statuses
    # Well-formed nonsense is computed, as a server that sees nothing must.
    assert statuses[200] > n_requests / 20
    assert statuses[400] > n_requests / 5
    assert service.worker_ids() == workers
    assert service.metric("cipherlearn_worker_restarts_total") == restarts
    results = post(service, ciphertext).content
    (label,) = client.decode(client.decrypt([results], 1))
    assert label == model.predict(X[:1])[0]


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
