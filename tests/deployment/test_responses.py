"""A client of a service that answers with whatever it likes."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import gzip
import json
import re
import socket
import traceback
from itertools import chain, repeat

import pytest
from memory import peak_below
from scripted import Scripted
from scripted import http_response as response

from cipherlearn.cli import main
from cipherlearn.deployment import MessageError, RemoteError, RemoteModel
from cipherlearn.deployment._connection import Connection
from cipherlearn.deployment._messages import Kind, Message

TOKEN = "a-secret-token"


@pytest.fixture
def client_zip(linear_artefacts):
    return response(body=(linear_artefacts / "client.zip").read_bytes())


def endless(head=b"HTTP/1.1 200 OK\r\n\r\n", part=bytes(1 << 20)):
    yield head
    while True:
        yield part


def connect(service, **options):
    return RemoteModel(service.url, n_retries=0, timeout=5, token=TOKEN, **options)


@pytest.mark.parametrize(
    "start", [b"", b"GET / HT", b"PUT / HTTP/1.1\r\nContent-Length: 9\r\n\r\n12"]
)
def test_a_scripted_service_waits_for_no_client_that_went_away(start):
    # Or else a test would leave a thread that computes for ever.
    service = Scripted(b"", response(400), then=lambda: response(500))
    host, _, port = service.url.rpartition("//")[2].partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(start)
    for status in (400, 500, 500):
        with pytest.raises(RemoteError, match=f"status {status}"):
            connect(service)


# ---------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", bytes(1 << 16)),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"10000\r\n%s\r\n" % bytes(65536),
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", bytes(1 << 16)),
    ],
    ids=["until closed", "chunked", "announced"],
)
def test_an_endless_artefact_is_not_read_to_its_end(monkeypatch, head, part):
    monkeypatch.setattr("cipherlearn.deployment._connection.MAX_BYTES", 1 << 22)
    with peak_below(20 << 20), pytest.raises(RemoteError, match="at most 4194304 bytes"):
        connect(Scripted(endless(head, part)))


def test_what_is_compressed_though_it_was_not_asked_for_is_refused(linear_artefacts):
    content = gzip.compress((linear_artefacts / "client.zip").read_bytes())
    with pytest.raises(RemoteError, match="must send files as they are"):
        connect(Scripted(response(body=content, Content_Encoding="gzip")))


def test_an_endless_error_is_not_read_to_its_end():
    with peak_below(20 << 20), pytest.raises(RemoteError, match="status 400: Bad"):
        connect(Scripted(endless(b"HTTP/1.1 400 Bad\r\n\r\n")))


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("size", [b"-1", b"-5"])
def test_a_chunk_of_fewer_than_no_bytes_is_refused(status, size):
    head = b"HTTP/1.1 %d Bad\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n" % (status, size)
    expected = "at least 0 bytes" if status == 200 else "status 500: Bad"
    with peak_below(20 << 20), pytest.raises(RemoteError, match=expected):
        connect(Scripted(chain([head], repeat(bytes(1 << 20), 100))))


def test_an_endless_redirect_is_not_read_to_its_end():
    head = b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n"
    with peak_below(20 << 20), pytest.raises(RemoteError, match="it redirects to '/elsewhere'"):
        connect(Scripted(chain([head], repeat(bytes(1 << 20), 100))))


def test_an_endless_result_is_not_read_to_its_end(client_zip, labelled_rows):
    header = Message(Kind.RESULT, bytes(32), bytes(32), b"").to_bytes()
    header = header[:104] + (2**40).to_bytes(8, "little") + header[112:]
    service = Scripted(client_zip, endless(b"HTTP/1.1 200 OK\r\n\r\n" + header))
    remote = connect(service)
    with peak_below(20 << 20), pytest.raises(MessageError, match="A result has at most"):
        remote.predict(labelled_rows[0][:1])


def test_a_result_in_small_chunks_takes_no_more_memory():
    message = Message(Kind.ERROR, bytes(32), bytes(32), b"x" * 300_000).to_bytes()
    parts = (b"2\r\n%s\r\n" % message[i : i + 2] for i in range(0, len(message), 2))
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = b"".join([head, *parts, b"0\r\n\r\n"])
    connection = Connection(Scripted(answer).url, None, True, 5, 0)
    with (
        peak_below(5 << 20),
        connection.request("POST", "/") as response,
        pytest.raises(MessageError, match="must have a status"),
    ):
        connection.read_message(response.raw, 1 << 22)


def test_cookies_are_neither_kept_nor_sent_back():
    service = Scripted(
        response(body=b"x", Set_Cookie="a=b", set_cookie2="c=d"), response(503), response(body=b"x")
    )
    connection = Connection(service.url, None, True, 5, 1)
    for _ in range(2):
        assert connection.get("/v1/client.zip") == b"x"
    assert len(service.requests) == 3
    assert not any(b"cookie" in request.lower() for request in service.requests)


# ---------------------------------------------------------------------- content


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[" * 100_000, b"[]", b"3", b'{"detail": {}}', b"\xff\xfe", b'{"status": 500}'),
        *(b'{"status": [], "detail": ""}', b'{"status": "x", "detail": ""}'),
        *(b'{"status": Infinity, "detail": ""}', b'{"status": 1e400, "detail": 3}'),
    ],
)
def test_an_error_of_odd_content_is_an_error_of_ours(client_zip, labelled_rows, body):
    X = labelled_rows[0][:1]
    with pytest.raises(RemoteError, match="status 500"):
        connect(Scripted(response(500, body)))
    message = Message(Kind.ERROR, bytes(32), bytes(32), body).to_bytes()
    remote = connect(Scripted(client_zip, response(200, message)))
    with pytest.raises((MessageError, RemoteError)):
        remote.predict(X)


ESCAPES = "busy \x1b]0;owned\x07\x1b[2J\x9b31m\u202etxt"


def test_escapes_of_a_service_do_not_reach_a_terminal(client_zip, labelled_rows, tmp_path, capfd):
    body = json.dumps({"status": 500, "detail": ESCAPES}, ensure_ascii=False).encode()
    message = Message(Kind.ERROR, bytes(32), bytes(32), body).to_bytes()
    raw = b"HTTP/1.1 500 \x1b[2J\x9b\r\nContent-Length: 0\r\n\r\n"
    moved = response(302, Location="/\x1b[2J")
    shown = []
    for first in (response(500, body), raw, moved):
        with pytest.raises(RemoteError) as error:
            connect(Scripted(first))
        shown += [str(error.value), "".join(traceback.format_exception(error.value))]
    remote = connect(Scripted(client_zip, response(200, message)))
    with pytest.raises((MessageError, RemoteError)) as error:
        remote.predict(labelled_rows[0][:1])
    shown += [str(error.value), "".join(traceback.format_exception(error.value))]
    rows = tmp_path / "rows.csv"
    rows.write_text("a\n1\n")
    url = Scripted(response(500, body)).url
    with pytest.raises(SystemExit) as stopped:
        main(["predict", str(rows), str(tmp_path / "out.csv"), "--url", url])
    shown += [str(stopped.value), *capfd.readouterr()]
    for text in shown:
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text), repr(text)


# ---------------------------------------------------------------------- tokens and addresses


def test_an_empty_token_is_refused_when_it_is_given():
    with pytest.raises(ValueError, match="A token must not be empty"):
        RemoteModel("http://127.0.0.1:9", token="")


@pytest.mark.parametrize(
    "token", ["secret\n", " secret", "se\rcret", "sécret", "sec\0ret", "\ud800"]
)
def test_a_token_that_no_header_holds_is_refused_when_it_is_given(token):
    with pytest.raises(ValueError, match="A token must be printable ASCII") as error:
        RemoteModel("http://127.0.0.1:9", token=token)
    assert "ret" not in str(error.value)


def test_a_token_that_is_sent_back_is_not_shown():
    body = json.dumps({"detail": f"Bearer {TOKEN} is wrong"}).encode()
    with pytest.raises(RemoteError, match="status 401") as error:
        connect(Scripted(response(401, body)))
    assert TOKEN not in "".join(traceback.format_exception(error.value))


def shown_by(call):
    """Return all that a RemoteError or MessageError of a call shows, with its causes."""
    with pytest.raises((MessageError, RemoteError)) as error:
        call()
    return "".join(traceback.format_exception(error.value))


# Before and after the places where messages are cut.
@pytest.mark.parametrize("n_before", [0, 60, 80, 90, 180, 190, 980, 990])
def test_no_part_of_a_token_is_shown(client_zip, labelled_rows, n_before):
    text = "." * n_before + TOKEN
    answers = [
        response(400, json.dumps({"detail": text}).encode()),
        f"HTTP/1.1 400 {text}\r\nContent-Length: 0\r\n\r\n".encode(),
        response(302, Location=text),
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{text}\r\n".encode(),
    ]
    shown = [shown_by(lambda answer=answer: connect(Scripted(answer))) for answer in answers]
    for error in (
        text.encode(),
        json.dumps({"status": 500, "detail": text}).encode(),
        json.dumps({"status": text, "detail": ""}).encode(),
        json.dumps({"status": 500, "detail": f"{text}\0"}).encode(),
    ):
        message = Message(Kind.ERROR, bytes(32), bytes(32), error).to_bytes()
        remote = connect(Scripted(client_zip, response(200, message)))
        shown.append(shown_by(lambda remote=remote: remote.predict(labelled_rows[0][:1])))
    for each in shown:
        assert TOKEN[:5] not in each


@pytest.mark.parametrize(
    ("user_info", "secrets"),
    [
        ("me:w0rd", ["w0rd", "bWU6dzByZA"]),
        ("me:w%C3%B6r%2Fd", ["wör/d", "w%C3%B6r%2Fd", "bWU6d8O2ci9k"]),
        ("t0ken", ["t0ken", "dDBrZW46"]),
    ],
)
def test_no_form_of_a_password_that_is_sent_back_is_shown(user_info, secrets):
    text = f"Basic {secrets[-1]}: {' '.join(secrets)}"
    service = Scripted(response(401, json.dumps({"detail": text}).encode()))
    url = service.url.replace("//", f"//{user_info}@")
    shown = shown_by(lambda: RemoteModel(url, n_retries=0))
    assert f"Authorization: Basic {secrets[-1]}".encode() in service.requests[0]
    assert [secret for secret in secrets if secret in shown] == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(client_zip, labelled_rows, status):
    other = Scripted(client_zip, client_zip, client_zip)
    with pytest.raises(RemoteError, match=r"redirects to 'http://127.*which is not followed"):
        connect(Scripted(response(status, Location=f"{other.url}/x")))
    first = Scripted(client_zip, response(status, Location=f"{other.url}/x"))
    remote = connect(first)
    with pytest.raises(RemoteError, match="which is not followed"):
        remote.predict(labelled_rows[0][:1])
    assert TOKEN.encode() in first.requests[1]
    assert not other.requests


@pytest.mark.parametrize(
    "url",
    [
        *(
            "ftp://me:w0rd@host",
            "file:///etc/passwd",
            "localhost:8000",
            "http://",
            "http://me:w0rd@",
        ),
        *(
            "http://me:w0rd@host:port",
            "http://me:w0rd@[::1",
            "http://me:w0rd@host/\n",
            "http://a b/",
        ),
    ],
)
def test_other_addresses_are_refused_without_their_password(url):
    with pytest.raises(ValueError, match="must be such as") as error:
        RemoteModel(url)
    assert "w0rd" not in str(error.value)


def test_a_password_in_an_address_is_not_shown():
    service = Scripted(response(500))
    url = service.url.replace("//", "//me:w0rd@")
    shown = []
    for address in (url, "http://me:w0rd@127.0.0.1:9"):
        with pytest.raises(RemoteError) as error:
            RemoteModel(address, n_retries=0)
        shown.append("".join(traceback.format_exception(error.value)))
    assert b"Authorization: Basic" in service.requests[0]
    assert not any("w0rd" in text for text in shown)
