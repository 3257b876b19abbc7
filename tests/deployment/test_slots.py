"""Slots for requests in progress, who must give them up, and what an answer takes meanwhile."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace

import pytest
from memory import peak_below
from starlette.requests import Request

from cipherlearn.deployment._messages import Kind, Message
from cipherlearn.deployment.service import ServiceSettings
from cipherlearn.deployment.service._app import _Service
from cipherlearn.deployment.service._slots import Slot, Slots, _timed


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Client:
    """Has a slot, if it gets one, and sends a part of its body at each step."""

    def __init__(self, slots, clock, peer, n_bytes=0):
        self.slot = Slot(peer, self.drop, clock)
        self.is_in = slots.take(self.slot)
        self._clock, self._n_bytes = clock, n_bytes
        self._waiting = self.slot.waiting()
        self._waiting.__enter__()

    def drop(self):
        self.is_in = False

    def send(self):
        self._waiting.__exit__(None, None, None)
        self.slot.pass_on(self._n_bytes)
        self._waiting = self.slot.waiting()
        self._waiting.__enter__()

    def compute(self):
        self._waiting.__exit__(None, None, None)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def slots():
    return Slots(4)


def test_who_sends_nothing_gives_way_to_others(slots, clock):
    idle = [Client(slots, clock, peer) for peer in "aabb"]
    clock.now = 1.0
    assert not Client(slots, clock, "c").is_in
    clock.now = 10.0
    assert Client(slots, clock, "c").is_in
    assert [each.is_in for each in idle].count(False) == 1
    assert slots.n_running == 4
    for each in idle:
        slots.give_back(each.slot)
    assert slots.n_running == 1  # that of the other


def test_who_has_its_share_takes_from_itself(slots, clock):
    first = [Client(slots, clock, "a"), Client(slots, clock, "b")]
    clock.now = 5.0
    second = Client(slots, clock, "b")
    clock.now = 10.0
    assert Client(slots, clock, "b").is_in
    assert [each.is_in for each in (*first, second)] == [True, False, True]


def test_who_sends_or_waits_for_a_result_keeps_its_slot(slots, clock):
    busy = [Client(slots, clock, "a", n_bytes=50_000) for _ in range(2)]
    busy += [Client(slots, clock, "b"), Client(slots, clock, "b")]
    busy[2].compute()
    busy[3].compute()
    for clock.now in range(1, 20):
        busy[0].send()
        busy[1].send()
    assert not Client(slots, clock, "c").is_in
    # Nor does it gain more than seconds by sending fast.
    clock.now += 6
    assert Client(slots, clock, "c").is_in
    assert [each.is_in for each in busy].count(False) == 1


def test_a_request_waits_for_its_client_until_its_body_is_whole_and_while_it_sends(clock):
    slot = Slot("a", lambda: None, clock)
    parts = [{"body": b"", "more_body": True}, {"body": b"", "more_body": False}, {}]
    late = []

    async def receive():
        clock.now += 10
        late.append(slot.seconds_late > 0)
        return parts.pop(0)

    async def send(_):
        clock.now += 10
        late.append(slot.seconds_late > 0)

    async def work():
        receiving, sending = _timed(slot, receive, send)
        for _ in range(3):
            await receiving()
        await sending({"body": b""})

    asyncio.run(work())
    assert late == [True, True, False, True]
    assert slot.seconds_late < 0  # now that nothing is waited for


# ---------------------------------------------------------------------- memory of a request


@pytest.fixture
def service(tmp_path, linear_artefacts, monkeypatch):
    service = _Service(ServiceSettings(linear_artefacts / "server.zip", tmp_path / "keys"))
    monkeypatch.setattr(service._store, "use", lambda key_id: None)
    yield service
    service._store.close()


def ciphertexts(service, n):
    served = service._served
    payload = bytes(served.frames["ciphertext"].n_payload)
    scope = bytes.fromhex(served.model_id)
    return Message(Kind.CIPHERTEXT, scope, os.urandom(32), payload).to_bytes() * n


@pytest.mark.parametrize("n", [1, 3])
def test_results_are_sent_in_parts_that_a_slow_reader_holds_up(service, n):
    async def evaluate(ciphertext, key_id):
        return bytes(1_000_000)

    service._pool = SimpleNamespace(evaluate=evaluate)
    body, sent = ciphertexts(service, n), []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(len(message.get("body", b"")))

    async def work():
        scope = {"type": "http", "method": "POST", "path": "/v1/predict", "headers": []}
        scope["asgi"] = {"spec_version": "2.4"}
        response = await service.predict(Request(scope, receive))
        await response(scope, receive, send)

    asyncio.run(work())
    assert sum(sent) == n * 1_000_000
    assert max(sent) <= 65536


def test_a_body_is_held_once(service):
    body = bytearray(ciphertexts(service, 500))
    with peak_below(0.1 * len(body)):
        service._admit(body)
