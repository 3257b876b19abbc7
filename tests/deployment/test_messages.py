"""Messages: what does not fit is refused with the reason, and structure survives any payload."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.deployment import ArtefactError, MessageError
from cipherlearn.deployment._messages import HEADER_BYTES, Frame, Kind, Message

SCOPE, KEY = bytes(range(32)), bytes(range(32, 64))


def message(payload=b"payload", kind=Kind.CIPHERTEXT):
    return Message(kind, SCOPE, KEY, payload)


@given(st.binary(max_size=200), st.sampled_from(Kind))
def test_a_message_comes_back(payload, kind):
    sent = message(payload, kind)
    data = sent.to_bytes()
    assert len(data) == HEADER_BYTES + len(payload) == Message.length(data[:HEADER_BYTES])
    assert Message.from_bytes(data, kind) == sent


@given(st.data())
def test_a_changed_message_means_the_same_or_is_refused(data):
    sent = message()
    changed = bytearray(sent.to_bytes())
    position = data.draw(st.integers(0, len(changed) - 1))
    changed[position] ^= data.draw(st.integers(1, 255))
    try:
        received = Message.from_bytes(bytes(changed), Kind.CIPHERTEXT)
    except MessageError:
        return
    # Only whom it belongs to can change unseen; the receiver compares that.
    assert received.payload == sent.payload
    assert 8 <= position < 104


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:20], "at least"),
        (lambda data: b"XXXX" + data[4:], "starts with"),
        (lambda data: data[:4] + b"\x63\0" + data[6:], "version 99"),
        (lambda data: data[:6] + b"\x03\0" + data[8:], "Expected a message of kind 2"),
        (lambda data: data[:-1], "was cut or joined"),
        (lambda data: data + b"x", "was cut or joined"),
        (lambda data: data[:-1] + b"x", "damaged"),
    ],
    ids=["header", "magic", "version", "kind", "cut", "joined", "damaged"],
)
def test_a_message_that_does_not_fit_is_refused(change, reason):
    with pytest.raises(MessageError, match=reason):
        Message.from_bytes(change(message().to_bytes()), Kind.CIPHERTEXT)


def values(n_runs=3, n_words=4):
    """Two serialized values of one structure, with random payloads of at least a word."""
    runs = [[os.urandom(8 * n_words) for _ in range(n_runs)] for _ in range(2)]
    return [b"structure8bytes!" + b"nextpart".join(parts) + b"end end " for parts in runs]


def test_a_frame_takes_payload_out_and_puts_it_back():
    first, second = values()
    frame = Frame.between([first], [second])
    assert frame.n_payload == 3 * 4 * 8
    assert frame.fill(frame.strip([second])) == [second]
    third, _ = values()
    assert frame.fill(frame.strip([third])) == [third]
    assert Frame.from_json(frame.to_json()) == frame


def test_a_frame_of_equal_values_has_no_payload():
    frame = Frame.between([b"constant"], [b"constant"])
    assert frame.strip([b"constant"]) == b""
    assert frame.fill(b"") == [b"constant"]


def test_values_of_several_inputs_share_a_payload():
    first, second = values()
    frame = Frame.between([first, b"longer  " + first], [second, b"longer  " + second])
    assert frame.n_payload == 2 * 3 * 4 * 8
    third = [values()[0], b"longer  " + values()[1]]
    assert frame.fill(frame.strip(third)) == third
    assert Frame.from_json(frame.to_json()) == frame
    with pytest.raises(MessageError, match="another structure"):
        frame.strip(third[::-1])


@given(st.binary(min_size=96, max_size=96))
def test_no_payload_changes_the_structure(payload):
    first, second = values()
    (filled,) = Frame.between([first], [second]).fill(payload)
    assert filled.startswith(b"structure8bytes!")
    assert filled.endswith(b"end end ")
    assert filled.count(b"nextpart") >= 2


def test_a_value_of_another_structure_is_refused():
    first, second = values()
    frame = Frame.between([first], [second])
    with pytest.raises(MessageError, match="another structure"):
        frame.strip([b"Structure" + first[9:]])
    with pytest.raises(MessageError, match="another structure"):
        frame.strip([first, first])
    with pytest.raises(MessageError, match=r"must have 96 bytes\. Got 95"):
        frame.fill(bytes(95))


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"sizes": [8], "fixed": [[0, "zz"]]},
        {"sizes": [8], "fixed": [[4, "00" * 8]]},
        {"sizes": [16], "fixed": [[8, "00" * 8], [0, "00" * 8]]},
        {"sizes": [16], "fixed": [[-8, "00"]]},
        {"sizes": [-1], "fixed": []},
    ],
)
def test_an_impossible_frame_is_refused(value):
    with pytest.raises(ArtefactError):
        Frame.from_json(value)


def test_values_of_different_lengths_have_no_frame():
    with pytest.raises(ArtefactError, match="one length"):
        Frame.between([bytes(8)], [bytes(16)])
