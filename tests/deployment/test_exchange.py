"""Client and server refuse what does not belong together."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cipherlearn.deployment import (
    ArtefactError,
    FHEClient,
    FHEServer,
    MessageError,
    UnknownKeyError,
)
from cipherlearn.deployment._messages import Kind, Message


def test_a_client_without_keys_says_how_to_get_them(linear_artefacts):
    client = FHEClient(linear_artefacts / "client.zip")
    for use in (
        lambda: client.encrypt([[0.0] * 4]),
        lambda: client.decrypt([], 0),
        lambda: client.key_id,
        lambda: client.evaluation_keys(),
        lambda: client.save_keys("never"),
        lambda: client.predict([[0.0] * 4], iter),
    ):
        with pytest.raises(ArtefactError, match=r"no keys yet. Call generate_keys"):
            use()


def test_unknown_keys_are_named(linear_artefacts, linear_client, labelled_rows):
    server = FHEServer(linear_artefacts / "server.zip")
    with pytest.raises(UnknownKeyError, match=linear_client.key_id):
        linear_client.predict(labelled_rows[0][:1], server.evaluate)


def test_keys_out_of_memory_are_found_again_or_unknown(linear_artefacts, labelled_rows):
    X, _ = labelled_rows
    clients = [FHEClient(linear_artefacts / "client.zip") for _ in range(3)]
    for each in clients:
        each.generate_keys()
    size = FHEServer(linear_artefacts / "server.zip").key_bytes
    forgetful = FHEServer(linear_artefacts / "server.zip", max_key_bytes=2 * size)
    for each in clients:
        forgetful.add_keys(each.evaluation_keys())
    with pytest.raises(UnknownKeyError):
        clients[0].predict(X[:1], forgetful.evaluate)
    clients[2].predict(X[:1], forgetful.evaluate)

    kept = {each.key_id: each.evaluation_keys() for each in clients}
    finding = FHEServer(linear_artefacts / "server.zip", 1, find_keys=kept.__getitem__)
    for each in clients:
        each.predict(X[:1], finding.evaluate)
    confused = FHEServer(
        linear_artefacts / "server.zip", find_keys=lambda _: clients[0].evaluation_keys()
    )
    with pytest.raises(UnknownKeyError, match="are not"):
        clients[1].predict(X[:1], confused.evaluate)


def test_keys_of_another_model_are_refused(server, client, linear_server, linear_client):
    with pytest.raises(MessageError, match="other cryptographic parameters"):
        server.add_keys(linear_client.evaluation_keys())
    with pytest.raises(MessageError, match="other cryptographic parameters"):
        linear_server.add_keys(client.evaluation_keys())


def test_a_ciphertext_of_another_model_is_refused(server, linear_client, labelled_rows):
    (ciphertext,) = linear_client.encrypt(labelled_rows[0][:1])
    with pytest.raises(MessageError, match="The ciphertext is for"):
        server.run(ciphertext)


def test_a_result_for_other_keys_is_refused(linear_artefacts, linear_server, labelled_rows):
    X, _ = labelled_rows
    mine, other = (FHEClient(linear_artefacts / "client.zip") for _ in range(2))
    for each in (mine, other):
        each.generate_keys()
        linear_server.add_keys(each.evaluation_keys())
    results = list(linear_server.evaluate(other.encrypt(X[:1])))
    with pytest.raises(MessageError, match="cannot decrypt it"):
        mine.decrypt(results, 1)


def test_results_out_of_order_are_refused(linear_client, linear_server, labelled_rows):
    def swapping(ciphertexts):
        return reversed(list(linear_server.evaluate(ciphertexts)))

    with pytest.raises(MessageError, match="must keep the order"):
        linear_client.predict(labelled_rows[0][:4], swapping)


@pytest.mark.parametrize("change", [lambda r: r[:-1], lambda r: [*r, r[-1]]], ids=["less", "more"])
def test_lost_and_doubled_results_are_refused(linear_client, linear_server, labelled_rows, change):
    def transport(ciphertexts):
        return change(list(linear_server.evaluate(ciphertexts)))

    with pytest.raises(MessageError):
        linear_client.predict(labelled_rows[0][:4], transport)


@pytest.mark.parametrize(("n_results", "n_rows"), [(1, 3), (2, 2), (0, 1), (3, 4)])
def test_as_many_results_are_needed_as_rows_had_ciphertexts(
    linear_client, linear_server, labelled_rows, n_results, n_rows
):
    results = list(linear_server.evaluate(linear_client.encrypt(labelled_rows[0][:6])))
    with pytest.raises(MessageError, match=f"{n_rows} rows need"):
        linear_client.decrypt(results[:n_results], n_rows)
    with pytest.raises(ValueError, match="n_rows must be an integer"):
        linear_client.decrypt(results, -1)


@pytest.mark.parametrize("wrap", [lambda data: data[:-8], lambda data: data + bytes(8)])
def test_a_payload_of_another_length_is_refused(client, server, labelled_rows, wrap):
    (ciphertext,) = client.encrypt(labelled_rows[0][:1])
    message = Message.from_bytes(ciphertext, Kind.CIPHERTEXT)
    changed = Message(Kind.CIPHERTEXT, message.scope, message.key, wrap(message.payload))
    with pytest.raises(MessageError, match="must have a payload of"):
        server.run(changed.to_bytes())


def test_outputs_can_be_had_step_by_step(
    deployed_linear, labelled_rows, linear_client, linear_server
):
    X, _ = labelled_rows
    results = [linear_server.run(ciphertext) for ciphertext in linear_client.encrypt(X[:3])]
    outputs = linear_client.decrypt(results, n_rows=3)
    np.testing.assert_array_equal(outputs, deployed_linear.program_(X[:3]))
    np.testing.assert_array_equal(linear_client.decode(outputs), deployed_linear.predict(X[:3]))


@pytest.mark.parametrize(("kind", "n_clients"), [("linear", 4), ("pipeline", 2)])
def test_threads_of_many_clients_get_their_own_results(request, labelled_rows, kind, n_clients):
    X, _ = labelled_rows
    directory = request.getfixturevalue("artefacts" if kind == "pipeline" else "linear_artefacts")
    model = request.getfixturevalue(f"deployed_{kind}")
    server = FHEServer(directory / "server.zip")
    clients = [FHEClient(directory / "client.zip") for _ in range(n_clients)]
    for each in clients:
        each.generate_keys()
        server.add_keys(each.evaluation_keys())

    def predict(i):
        rows = X[2 * i : 2 * i + 2]
        predicted = clients[i % len(clients)].predict(rows, server.evaluate)
        return (predicted == model.predict(rows)).all()

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(predict, range(12)))


@pytest.mark.parametrize("result", [None, "text", 3, [b""]])
def test_results_that_are_no_bytes_are_refused(linear_client, labelled_rows, result):
    with pytest.raises(MessageError, match="must be bytes"):
        linear_client.decrypt([result], 1)
    with pytest.raises(MessageError, match="must be bytes"):
        linear_client.predict(labelled_rows[0][:1], lambda messages: [result for _ in messages])
