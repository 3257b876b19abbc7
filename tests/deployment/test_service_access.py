"""Who may ask a service: tokens, names of hosts, pages of other origins, and methods."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import gc
import hmac
import socket
import traceback
import weakref
from pathlib import Path

import pytest
import requests
from serving import Service, needs_proc, post, put_keys

from cipherlearn.deployment.service import ServiceSettings, create_app
from cipherlearn.deployment.service._tokens import Tokens

pytestmark = needs_proc

FIRST, SECOND, THIRD = (c * 32 for c in "abc")
KEY = "/v1/keys/" + "0" * 64


def status(service, path="/v1/model", token=None, **headers):
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return requests.get(service.url + path, headers=headers, timeout=10).status_code


# ---------------------------------------------------------------------- tokens


@pytest.fixture(scope="module")
def token_file(tmp_path_factory):
    return tmp_path_factory.mktemp("tokens") / "tokens"


@pytest.fixture(scope="module")
def guarded(linear_artefacts, token_file, tmp_path_factory):
    token_file.write_text(f"{FIRST}\n\n{SECOND}\n")
    directory = tmp_path_factory.mktemp("guarded") / "keys"
    flags = ("--token-file", str(token_file))
    with Service(linear_artefacts / "server.zip", directory, *flags, token=THIRD) as service:
        yield service


def test_each_token_of_a_file_is_accepted_and_no_other(guarded):
    assert [status(guarded, token=token) for token in (FIRST, SECOND)] == [200, 200]
    # The file goes before the environment variable.
    others = (THIRD, FIRST[:-1], FIRST + "x", FIRST + SECOND, "", f"{FIRST}\t{SECOND}")
    assert {status(guarded, token=token) for token in others} == {401}
    assert status(guarded, Authorization=f"Basic {FIRST}") == 401
    assert status(guarded, Authorization=FIRST) == 401
    assert status(guarded, Authorization=f"bearer  {FIRST}") == 200  # as RFC 9110 has it


def test_tokens_are_changed_without_a_restart(guarded, token_file):
    before = token_file.read_text()
    token_file.write_text(f"{THIRD}\n")
    assert [status(guarded, token=token) for token in (FIRST, SECOND, THIRD)] == [401, 401, 200]
    # What is no list of tokens changes nothing.
    for content in ("", "\n", "tökén", "a\x00b"):
        token_file.write_text(content)
        assert [status(guarded, token=token) for token in (FIRST, THIRD, "")] == [401, 200, 401]
    token_file.unlink()
    assert status(guarded, token=THIRD) == 200
    replacement = token_file.with_name("replacement")
    replacement.write_text(before)
    replacement.replace(token_file)
    assert [status(guarded, token=token) for token in (FIRST, THIRD)] == [200, 401]
    errors = [log["event"] for log in guarded.logs() if log["level"] == "ERROR"]
    assert len(errors) == 5
    assert all("the tokens stay as they were" in error for error in errors)


def test_all_but_the_health_needs_a_token(guarded):
    paths = ("/docs", "/openapi.json", "/redoc", "/metrics", "/v1/model", "/v1/client.zip", KEY)
    for path in (*paths, "/nothing", "/health/", "//health", "/health/../v1/model"):
        assert status(guarded, path) == 401
    assert status(guarded, "/health") == 200
    assert [status(guarded, path, FIRST) for path in ("/docs", "/openapi.json")] == [200, 200]


def test_tokens_stay_where_they_were_given(tmp_path, linear_artefacts, linear_client):
    with Service(linear_artefacts / "server.zip", tmp_path / "keys", token=FIRST) as service:
        assert status(service, token=FIRST) == 200
        assert put_keys(service, linear_client).status_code == 401
        (worker,) = service.worker_ids()
        for pid, names in ((worker, ("cmdline", "environ")), (service.process.pid, ("cmdline",))):
            for name in names:
                content = Path(f"/proc/{pid}/{name}").read_bytes()
                assert content
                assert FIRST.encode() not in content
        assert FIRST not in service.log_path.read_text()
    settings = ServiceSettings(Path("server.zip"), Path("keys"), tokens=[FIRST])
    assert FIRST not in repr(settings)


class Token(str):
    """Text to which a weak reference is possible."""


def test_a_service_keeps_digests_of_tokens_alone(linear_artefacts, tmp_path):
    token = Token(FIRST)
    reference = weakref.ref(token)
    app = create_app(ServiceSettings(linear_artefacts / "server.zip", tmp_path, tokens=[token]))
    del token
    gc.collect()
    assert reference() is None
    (health,) = (route.endpoint for route in app.routes if getattr(route, "path", "") == "/health")
    health.__self__._store.close()


@pytest.mark.parametrize("token", ["", f"{FIRST}\n", f" {FIRST}", f"{FIRST}é", f"a\r\n{FIRST}"])
def test_tokens_that_no_header_can_hold_are_refused_unnamed(linear_artefacts, tmp_path, token):
    settings = ServiceSettings(linear_artefacts / "server.zip", tmp_path, tokens=[token])
    with pytest.raises(ValueError, match="token must") as caught:
        create_app(settings)
    assert FIRST not in str(caught.value)


@pytest.mark.parametrize("content", ["", " \n\n", f"{FIRST}é", f"{FIRST}\n{SECOND}\0", "a\tb"])
def test_files_of_no_valid_tokens_are_refused_unnamed(tmp_path, content):
    file = tmp_path / "tokens"
    file.write_text(content, "latin-1")
    with pytest.raises(ValueError, match=r"[Tt]oken.* must") as caught:
        Tokens(file=file)
    shown = "".join(traceback.format_exception(caught.value))
    assert FIRST not in shown
    assert SECOND not in shown


def test_spaces_and_blank_lines_around_the_tokens_of_a_file_do_not_count(tmp_path):
    file = tmp_path / "tokens"
    file.write_bytes(f"\n {FIRST}\t\r\n\r\n{SECOND}".encode())
    tokens = Tokens(file=file)
    assert [tokens.accept(token) for token in (FIRST, SECOND, THIRD)] == [True, True, False]


def test_each_token_is_compared_in_constant_time(monkeypatch):
    compared, real = [], hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda *pair: compared.append(pair) or real(*pair))
    tokens = Tokens([FIRST, SECOND, THIRD])
    for token in (FIRST, THIRD, "x", "x" * 1000, "ü"):
        compared.clear()
        assert tokens.accept(token) == (token in (FIRST, THIRD))
        # Digests, so that neither length nor contents show.
        assert [len(each) for pair in compared for each in pair] == [32] * 6


# ---------------------------------------------------------------------- hosts and origins


def test_a_name_that_is_not_the_services_is_refused(linear_service):
    # A page of evil.example whose name leads to this service (DNS rebinding).
    response = requests.get(
        f"{linear_service.url}/v1/model", headers={"Host": "evil.example"}, timeout=10
    )
    assert response.status_code == 400
    assert "--allowed-host" in response.json()["detail"]
    for host in ("evil.example:80", "127.0.0.1.evil.example", "[", "localhost.evil.example", "@"):
        assert status(linear_service, Host=host) == 400
    for host in ("127.0.0.1:1", "[::1]:8000", "LOCALHOST", "localhost.", socket.gethostname()):
        assert status(linear_service, Host=host) == 200


def test_names_can_be_allowed(tmp_path, linear_artefacts):
    server_zip = linear_artefacts / "server.zip"
    with Service(server_zip, tmp_path / "a", "--allowed-host", "Model.example") as service:
        assert status(service, Host="model.example:443") == 200
        assert status(service, Host="evil.example") == 400
    with Service(server_zip, tmp_path / "b", "--allowed-host", "*") as service:
        assert status(service, Host="evil.example") == 200
    # A page does not have the token, by whatever name it reaches the service.
    with Service(server_zip, tmp_path / "c", token=FIRST) as service:
        assert status(service, Host="model.example", token=FIRST) == 200
    flags = ("--allowed-host", "model.example")
    with Service(server_zip, tmp_path / "d", *flags, token=FIRST) as service:
        assert status(service, Host="evil.example", token=FIRST) == 400


def test_pages_of_other_origins_are_refused(linear_service):
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "x"):
        response = post(
            linear_service, b"x", headers={"Origin": origin, "Content-Type": "text/plain"}
        )
        assert response.status_code == 403
    own = post(linear_service, b"x", headers={"Origin": linear_service.url})
    assert own.status_code == 400
    # What a browser asks before other requests, and no header that would allow them.
    response = requests.options(
        f"{linear_service.url}/v1/predict",
        headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"},
        timeout=10,
    )
    assert response.status_code in (403, 405)
    read = requests.get(
        f"{linear_service.url}/v1/model", headers={"Origin": "http://evil.example"}, timeout=10
    )
    for answer in (response, read):
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/health", "GET"),
        ("/v1/model", "GET"),
        ("/v1/predict", "POST"),
        (KEY, "DELETE, GET, PUT"),
    ],
)
def test_a_method_that_a_path_lacks_is_refused_with_those_it_has(linear_service, path, allowed):
    for method in {"GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "OWN"} - {
        *allowed.split(", ")
    }:
        response = requests.request(method, linear_service.url + path, timeout=10)
        assert response.status_code == 405
        assert response.headers["Allow"] == allowed
        assert allowed in response.json()["detail"]


def test_nobody_is_sent_elsewhere(linear_service):
    response = requests.get(f"{linear_service.url}/health/", allow_redirects=False, timeout=10)
    assert response.status_code == 404
