"""Keys that a client saves, loads and generates."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cases import LINEAR

from cipherlearn import NeuralNetClassifier
from cipherlearn.deployment import ArtefactError, FHEClient, FHEServer, MessageError, export
from cipherlearn.deployment._client_keys import ClientKeys
from cipherlearn.engines._bindings import compiler
from cipherlearn.engines.concrete_python._keyset import rewritten_keys


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_keys_come_back_from_a_file(
    tmp_path, artefacts, client, server, deployed_pipeline, labelled_rows, passphrase
):
    X, _ = labelled_rows
    path = tmp_path / "my.keys"
    client.save_keys(path, passphrase)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = FHEClient(artefacts / "client.zip")
    again.load_keys(path, passphrase)
    assert again.key_id == client.key_id
    predicted = again.predict(X[:2], server.evaluate)
    np.testing.assert_array_equal(predicted, deployed_pipeline.predict(X[:2]))


def test_a_passphrase_hides_the_keys(tmp_path, linear_client):
    secret = linear_client._exchange.keys.runtime.secret_keys()
    linear_client.save_keys(tmp_path / "open.keys")
    linear_client.save_keys(tmp_path / "sealed.keys", "correct horse")
    assert secret in (tmp_path / "open.keys").read_bytes()
    sealed = (tmp_path / "sealed.keys").read_bytes()
    chunks = [secret[i : i + 64] for i in range(0, len(secret) - 64, 64)]
    assert not any(chunk in sealed for chunk in chunks)


def test_a_key_file_is_never_overwritten(tmp_path, linear_client):
    path = tmp_path / "my.keys"
    linear_client.save_keys(path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="only key"):
        linear_client.save_keys(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
@pytest.mark.parametrize("position", [0, 5, 20, 45, 60, 90, 1000, -1])
def test_a_damaged_key_file_is_refused(tmp_path, linear_artefacts, passphrase, position):
    client = FHEClient(linear_artefacts / "client.zip")
    client.generate_keys()
    path = tmp_path / "my.keys"
    client.save_keys(path, passphrase)
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(ArtefactError):
        client.load_keys(path, passphrase)


def resealed(content, change):
    """The key file with other words, and a checksum that fits."""
    words = np.frombuffer(content[132:], "<u8").copy()
    change(words)
    start, keys = content[:68], content[100:132] + words.tobytes()
    return start + hashlib.sha256(start + keys).digest() + keys


def test_no_word_of_a_key_file_leads_the_engine_astray(tmp_path, linear_artefacts, linear_client):
    """Structure is of this process. Secret keys are bits, of the lengths that parameters say."""
    path = tmp_path / "my.keys"
    linear_client.save_keys(path)
    content, client = path.read_bytes(), FHEClient(linear_artefacts / "client.zip")
    n_words = (len(content) - 132) // 8
    n_refused = 0
    for position in range(n_words):
        for value in (0, 2, 2**31, 2**32 + 1, 2**64 - 1):

            def change(words, position=position, value=value):
                words[position] = value

            if position > 60 and position % 100:
                continue
            path.write_bytes(resealed(content, change))
            try:
                client.load_keys(path)
            except ArtefactError:
                n_refused += 1
                continue
            assert next(client.encrypt([[0.0] * 4]))
    assert n_refused > 250


@pytest.mark.parametrize("n", [0, 1, 100, -8])
def test_keys_of_another_length_are_refused(tmp_path, linear_artefacts, linear_client, n):
    path = tmp_path / "my.keys"
    linear_client.save_keys(path)
    start, keys = path.read_bytes()[:68], path.read_bytes()[100:]
    keys = keys[:n] if n < 0 else keys[: 32 + 8 * n]
    path.write_bytes(start + hashlib.sha256(start + keys).digest() + keys)
    with pytest.raises(ArtefactError, match="cannot read the keys"):
        FHEClient(linear_artefacts / "client.zip").load_keys(path)


def test_an_endless_key_file_is_not_read_to_its_end(tmp_path, linear_artefacts, linear_client):
    path = tmp_path / "my.keys"
    linear_client.save_keys(path)
    with path.open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(ArtefactError, match="longer than this model's keys"):
        FHEClient(linear_artefacts / "client.zip").load_keys(path)


def test_rewritten_keys_are_those_of_the_engine(client):
    keys = client._exchange.keys.runtime
    rewritten = rewritten_keys(keys.secret_keys(), client._model.specs)
    assert bytes(compiler.Keyset.deserialize(rewritten).serialize()) == keys.secret_keys()


@pytest.mark.parametrize(
    ("saved", "given", "reason"),
    [
        ("right", "wrong", "passphrase is wrong"),
        ("right", None, "Give its passphrase"),
        # Or else who can replace the file knows the keys.
        (None, "right", "read with a passphrase must be encrypted"),
    ],
)
def test_a_wrong_passphrase_is_refused(tmp_path, linear_client, saved, given, reason):
    linear_client.save_keys(tmp_path / "my.keys", saved)
    with pytest.raises(ArtefactError, match=reason):
        linear_client.load_keys(tmp_path / "my.keys", given)


def test_keys_in_a_pipe_or_directory_are_refused(tmp_path, linear_client):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(ArtefactError, match="must be in a regular file"):
            linear_client.load_keys(path)


def test_keys_that_fail_to_load_leave_those_that_were_there(
    tmp_path, monkeypatch, linear_artefacts, linear_server, deployed_linear, labelled_rows
):
    X, _ = labelled_rows
    old, new = (FHEClient(linear_artefacts / "client.zip") for _ in range(2))
    for each in (old, new):
        each.generate_keys()
    linear_server.add_keys(old.evaluation_keys())
    new.save_keys(tmp_path / "new.keys")
    key_id = old.key_id

    def other_structure(*_):
        raise MessageError("another structure")

    with monkeypatch.context() as patch:
        patch.setattr(ClientKeys, "evaluation_keys", other_structure)
        with pytest.raises(ArtefactError, match="cannot read the keys"):
            old.load_keys(tmp_path / "new.keys")
    assert old.key_id == key_id
    np.testing.assert_array_equal(
        old.predict(X, linear_server.evaluate), deployed_linear.predict(X)
    )


def test_of_two_who_write_one_key_file_one_is_told(tmp_path, linear_artefacts):
    clients = [FHEClient(linear_artefacts / "client.zip") for _ in range(4)]
    for each in clients:
        each.generate_keys()

    def save(each):
        try:
            each.save_keys(tmp_path / "my.keys")
        except FileExistsError:
            return None
        return each.key_id

    with ThreadPoolExecutor(4) as threads:
        (kept,) = filter(None, threads.map(save, clients))
    clients[0].load_keys(tmp_path / "my.keys")
    assert clients[0].key_id == kept


def test_keys_that_others_may_read_are_warned_about(tmp_path, linear_client, linear_artefacts):
    path = tmp_path / "my.keys"
    linear_client.save_keys(path)
    path.chmod(0o644)
    with pytest.warns(UserWarning, match="chmod 600"):
        FHEClient(linear_artefacts / "client.zip").load_keys(path)


def test_keys_of_another_model_and_other_files_are_refused(
    tmp_path, client, linear_client, artefacts
):
    linear_client.save_keys(tmp_path / "linear.keys")
    with pytest.raises(ArtefactError, match="for other cryptographic parameters"):
        FHEClient(artefacts / "client.zip").load_keys(tmp_path / "linear.keys")
    with pytest.raises(ArtefactError, match="must be a key file"):
        client.load_keys(artefacts / "client.zip")
    with pytest.raises(FileNotFoundError):
        client.load_keys(tmp_path / "none.keys")


def test_keys_serve_another_model_of_the_same_parameters(tmp_path, labelled_rows):
    X, y = labelled_rows
    directories = [tmp_path / "old", tmp_path / "new"]
    models = [NeuralNetClassifier(**LINEAR).fit(X, labels) for labels in (y, np.char.upper(y))]
    for model, directory in zip(models, directories, strict=True):
        model.compile()
        export(model, directory)
    old, new = (FHEClient(directory / "client.zip") for directory in directories)
    old.generate_keys()
    old.save_keys(tmp_path / "my.keys")
    new.load_keys(tmp_path / "my.keys")
    server = FHEServer(directories[1] / "server.zip")
    server.add_keys(new.evaluation_keys())
    np.testing.assert_array_equal(new.predict(X[:3], server.evaluate), models[1].predict(X[:3]))
    assert old.model_id != new.model_id
    with pytest.raises(MessageError, match="The ciphertext is for"):
        old.predict(X[:1], server.evaluate)


def test_two_clients_never_have_the_same_keys(linear_artefacts, artefacts):
    for directory in (linear_artefacts, artefacts):
        made = []
        for _ in range(2):
            each = FHEClient(directory / "client.zip")
            each.generate_keys()
            made.append((each.key_id, each._exchange.keys.runtime.secret_keys()))
        (id_a, secret_a), (id_b, secret_b) = made
        assert id_a != id_b
        assert secret_a != secret_b
