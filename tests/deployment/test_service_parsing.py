"""Bodies and heads that are slow to parse, and bodies that nobody reads."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import asyncio
import contextlib
import http.client
import threading
import time
from functools import partial

import h11
import pytest
from serving import Service, needs_proc
from test_service_connections import POST, one_health

from cipherlearn.deployment import RemoteModel
from cipherlearn.deployment.service._paced_http import _PacedParser
from cipherlearn.deployment.service._turns import Turns

pytestmark = needs_proc

CHUNKED = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n%sTransfer-Encoding: chunked\r\n\r\n"
TINY_CHUNKS = b"1\r\nx\r\n" * 40_000


def slowest_health(service, seconds):
    """Return the most seconds that an answer takes meanwhile."""
    took, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        start = time.monotonic()
        assert one_health(service)
        took.append(time.monotonic() - start)
    return max(took)


def parsed(data):
    """Give all that the parser makes of what one client sent."""
    parser = _PacedParser()
    parser.n_left = 10
    parser.receive_data(data)
    while (event := parser.next_event()) is not h11.NEED_DATA:
        yield event


@pytest.mark.parametrize(
    "start",
    [b"GET / HTTP/1.1\r\nHost: a\r\n", CHUNKED % b"" + b"0\r\n"],
    ids=["head", "trailers"],
)
@pytest.mark.parametrize("end", [b"\r\n", b""], ids=["whole", "more to come"])
def test_a_head_and_trailers_have_a_hundred_lines(start, end):
    assert h11.EndOfMessage in map(type, parsed(start + b"a:\r\n" * 97 + b"\r\n"))
    with pytest.raises(h11.RemoteProtocolError, match="lines"):
        list(parsed(start + b"a:\r\n" * 3_900 + end))


def test_lines_of_a_body_are_not_counted():
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n"
    *_, body, end = parsed(head + b"a:\r\n" * 2250)
    assert (len(body.data), type(end)) == (9000, h11.EndOfMessage)


def test_a_body_of_two_lengths_is_refused():
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
    with pytest.raises(h11.RemoteProtocolError, match="one length"):
        list(parsed(head + b"0\r\n\r\n"))


def test_peers_have_their_turns_one_after_the_other():
    done = []

    async def work():
        turns = Turns()
        for i in range(1000):
            turns.add("many", partial(done.append, i))
        turns.add("one", partial(done.append, "one"))
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(work())
    assert done[:3] == [0, "one", 1]
    assert len(done) < 100  # others than these parts have their turns too


@contextlib.contextmanager
def floods(service, head, data, n=4):
    """Send requests with endless bodies, over some connections, in threads."""
    ended = threading.Event()

    def flood():
        while not ended.is_set():
            with contextlib.suppress(OSError), service.connect("127.0.0.2") as connection:
                connection.settimeout(1)
                connection.sendall(head)
                while not ended.is_set():
                    connection.sendall(data)

    threads = [threading.Thread(target=flood) for _ in range(n)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@pytest.mark.alone
@pytest.mark.parametrize(
    ("token", "head", "data"),
    [
        (b"", CHUNKED, TINY_CHUNKS),
        (b"Authorization: Bearer t\r\n", CHUNKED, TINY_CHUNKS),
        (b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n%s", b"a:\r\n" * 60_000),
    ],
    ids=["refused chunks", "accepted chunks", "fields"],
)
def test_what_is_slow_to_parse_does_not_stop_a_service(
    tmp_path, linear_artefacts, token, head, data
):
    with (
        Service(linear_artefacts / "server.zip", tmp_path / "keys", token="t") as service,
        floods(service, head % token, data),
    ):
        assert slowest_health(service, 5) < 1


@pytest.fixture(scope="module")
def impatient(linear_artefacts, tmp_path_factory):
    directory = tmp_path_factory.mktemp("impatient") / "keys"
    flags = ("--header-timeout", "2")
    with Service(linear_artefacts / "server.zip", directory, *flags, token="t") as service:
        yield service


@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked", b"Content-Length: 9999999"])
def test_who_still_sends_a_refused_body_gets_the_answer(impatient, framing):
    with impatient.connect() as connection:
        connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n" % framing)
        time.sleep(0.3)
        connection.sendall(b"5\r\n12345\r\n" * 20_000)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"\r\nconnection: close\r\n" in answer
    assert answer.count(b"HTTP/1.1") == 1


def test_a_refused_body_that_arrived_whole_keeps_the_connection(impatient):
    with impatient.connect() as connection:
        for _ in range(2):
            # In one go. Of two parts, the second may come too late.
            connection.sendall(POST + b"too short")
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert (answer.status, answer.will_close) == (401, False)
            answer.read()


def test_bodies_of_small_chunks_are_read(impatient, labelled_rows):
    remote = RemoteModel(impatient.url, token="t", n_retries=0)
    remote.upload_keys()
    (body,) = remote.client_.encrypt(labelled_rows[0][:2])
    head = CHUNKED % b"Authorization: Bearer t\r\n"
    chunks = b"".join(b"4\r\n%s\r\n" % body[i : i + 4] for i in range(0, len(body) // 4 * 4, 4))
    rest = body[len(body) // 4 * 4 :]
    chunks += (b"%x\r\n%s\r\n" % (len(rest), rest) if rest else b"") + b"0\r\n\r\n"
    with impatient.connect() as connection:
        # A further request comes at once.
        second = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        connection.sendall(head + chunks + second)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    assert answer.count(b"HTTP/1.1 200") == 2
