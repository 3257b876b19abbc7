"""Artefacts: read back as written, and refused with the reason when they are not whole."""

from __future__ import annotations

import io
import json
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cipherlearn.deployment import ArtefactError, FHEClient, FHEServer
from cipherlearn.deployment._archive import Archive
from cipherlearn.deployment._model import ClientModel, ServerModel


@pytest.fixture(scope="module")
def client_zip(linear_artefacts):
    return (linear_artefacts / "client.zip").read_bytes()


def resealed(content, change, kind="client"):
    """The archive with changed members, and checksums that fit."""
    archive = Archive.from_bytes(content, kind)
    change(archive.members)
    return archive.to_bytes()


def with_json(name, change):
    def apply(members):
        value = json.loads(members[name])
        change(value)
        members[name] = json.dumps(value).encode()

    return apply


def test_an_archive_comes_back_byte_for_byte(client_zip):
    archive = Archive.from_bytes(client_zip, "client")
    assert archive.to_bytes() == client_zip
    assert ClientModel.from_archive(archive).to_archive().members == archive.members


def test_a_model_has_one_id_and_another_model_another(linear_artefacts, artefacts):
    ids = {
        Archive.read(directory / "client.zip", "client").id
        for directory in (linear_artefacts, linear_artefacts, artefacts)
    }
    assert len(ids) == 2


@given(st.data())
@settings(max_examples=200)
def test_a_damaged_artefact_is_refused_or_means_the_same(client_zip, data):
    position = data.draw(st.integers(0, len(client_zip) - 1))
    damaged = bytearray(client_zip)
    damaged[position] ^= data.draw(st.integers(1, 255))
    try:
        archive = Archive.from_bytes(bytes(damaged), "client")
    except ArtefactError:
        return
    # Some bytes of a zip file, such as times, mean nothing.
    assert archive.members == Archive.from_bytes(client_zip, "client").members


@given(st.binary(max_size=400))
def test_foreign_bytes_are_refused(content):
    with pytest.raises(ArtefactError):
        Archive.from_bytes(content, "server")


@pytest.mark.parametrize("keep", [0, 1, 30, 200, -1])
def test_a_truncated_artefact_is_refused(client_zip, keep):
    with pytest.raises(ArtefactError, match=r"undamaged cipherlearn-client archive"):
        Archive.from_bytes(client_zip[:keep], "client")


def test_one_artefact_is_not_the_other(linear_artefacts):
    with pytest.raises(ArtefactError, match=r"A client reads client\.zip, a server server\.zip"):
        FHEClient(linear_artefacts / "server.zip")
    with pytest.raises(ArtefactError, match=r"A client reads client\.zip, a server server\.zip"):
        FHEServer(linear_artefacts / "client.zip")


def test_a_missing_artefact_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        FHEClient(tmp_path / "client.zip")


def test_an_artefact_of_a_later_version_is_refused(client_zip):
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(client_zip)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "manifest.json":
                content = json.dumps({**json.loads(content), "version": 2}).encode()
            new.writestr(name, content)
    with pytest.raises(ArtefactError, match="reads version 1 of cipherlearn-client. Got version 2"):
        Archive.from_bytes(buffer.getvalue(), "client")


def test_an_artefact_that_would_fill_the_memory_is_refused(monkeypatch, client_zip):
    monkeypatch.setattr("cipherlearn.deployment._archive.MAX_BYTES", 1000)
    with pytest.raises(ArtefactError, match="at most 1000 bytes"):
        Archive.from_bytes(client_zip, "client")


@pytest.mark.parametrize(
    "change",
    [
        lambda members: members.pop("specs.json"),
        lambda members: members.pop("input_thresholds.npy"),
        lambda members: members.update({"output_gain.npy": b"\x93NUMPY"}),
        lambda members: members.update({"client.json": b"[]"}),
        lambda members: members.update({"specs.json": b"{}"}),
        with_json("client.json", lambda d: d.update(estimator="clusterer")),
        with_json("client.json", lambda d: d.update(classes=None)),
        with_json("client.json", lambda d: d["classes"].update(values=["one"])),
        with_json("client.json", lambda d: d["classes"].update(dtype="no type")),
        with_json("client.json", lambda d: d.update(probabilities="exec")),
        with_json("client.json", lambda d: d.update(batch_size=0)),
        with_json("client.json", lambda d: d["frames"].pop("result")),
        with_json("client.json", lambda d: d.pop("n_network_features")),
    ],
)
def test_an_incomplete_client_artefact_is_refused(client_zip, change):
    with pytest.raises(ArtefactError):
        FHEClient.from_bytes(resealed(client_zip, change))


def test_a_pickle_in_an_array_is_not_loaded(client_zip):
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, np.array([print], dtype=object), allow_pickle=True)
    content = resealed(client_zip, lambda m: m.update({"output_bias.npy": buffer.getvalue()}))
    with pytest.raises(ArtefactError, match="allow_pickle"):
        FHEClient.from_bytes(content)


@pytest.mark.parametrize(
    "change",
    [
        lambda members: members.pop("circuit.mlir"),
        lambda members: members.pop("client.zip"),
        lambda members: members.update({"client.zip": b"PK"}),
        with_json("server.json", lambda d: d["error_probability"].update(p_error=2.0)),
        with_json("server.json", lambda d: d.pop("error_probability")),
    ],
)
def test_an_incomplete_server_artefact_is_refused(linear_artefacts, change):
    content = (linear_artefacts / "server.zip").read_bytes()
    with pytest.raises(ArtefactError):
        ServerModel.from_archive(Archive.from_bytes(resealed(content, change, "server"), "server"))


@pytest.mark.parametrize("circuit", [b"no circuit", b"func.func @main() {"])
def test_a_circuit_that_does_not_compile_is_refused(tmp_path, linear_artefacts, circuit):
    content = (linear_artefacts / "server.zip").read_bytes()
    path = tmp_path / "server.zip"
    path.write_bytes(resealed(content, lambda m: m.update({"circuit.mlir": circuit}), "server"))
    with pytest.raises(ArtefactError, match="cannot compile"):
        FHEServer(path)


def test_a_server_that_compiles_to_other_parameters_is_refused(tmp_path, artefacts):
    change = with_json("server.json", lambda d: d["error_probability"].update(p_error=2.0**-10))
    content = (artefacts / "server.zip").read_bytes()
    path = tmp_path / "server.zip"
    path.write_bytes(resealed(content, change, "server"))
    with pytest.raises(ArtefactError, match="chose other cryptographic parameters"):
        FHEServer(path)


def test_an_artefact_of_another_engine_is_refused(client_zip):
    change = with_json("client.json", lambda d: d["engine"].update(name="another-engine"))
    with pytest.raises(ArtefactError, match="compiled for another-engine"):
        FHEClient.from_bytes(resealed(client_zip, change))


# ---------------------------------------------------------------------- security


def weaker_noise(specs):
    for key in specs["keyset"]["lweKeyswitchKeys"]:
        key["params"]["variance"] *= 0.9


def no_noise(specs):
    specs["keyset"]["lweBootstrapKeys"][0]["params"]["variance"] = 0


def shorter_keys(specs):
    specs["keyset"]["lweSecretKeys"][-1]["params"]["lweDimension"] -= 10


def weaker_inputs(specs):
    for circuit in specs["circuits"]:
        circuit["inputs"][0]["typeInfo"]["lweCiphertext"]["encryption"]["variance"] *= 0.5


def sparse_keys(specs):
    specs["keyset"]["lweSecretKeys"][0]["params"]["keyType"] = "sparse"


@pytest.mark.parametrize("weaken", [weaker_noise, no_noise, shorter_keys, weaker_inputs])
def test_parameters_of_less_than_128_bits_are_refused(artefacts, weaken):
    content = (artefacts / "client.zip").read_bytes()
    with pytest.raises(ArtefactError, match="128 bits of security.*could read what you encrypt"):
        FHEClient.from_bytes(resealed(content, with_json("specs.json", weaken)))


def test_keys_of_another_kind_are_refused(artefacts):
    content = (artefacts / "client.zip").read_bytes()
    with pytest.raises(ArtefactError, match="must be binary"):
        FHEClient.from_bytes(resealed(content, with_json("specs.json", sparse_keys)))
