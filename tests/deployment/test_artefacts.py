"""Artefacts: read back as written, and refused with the reason when they are not whole."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cipherlearn import (
    EngineNotFoundError,
    UnsupportedByEngineError,
    load_program,
    save_program,
)
from cipherlearn.deployment import ArtefactError, FHEClient, FHEServer, export
from cipherlearn.deployment.artefacts._archive import Archive
from cipherlearn.deployment.artefacts._contents import ClientModel, ServerModel
from cipherlearn.deployment.artefacts._specs import _INTERCEPT, _SLOPE
from cipherlearn.program._nodes import Lookup, Sum


@pytest.fixture(scope="module")
def client_zip(linear_artefacts):
    return (linear_artefacts / "client.zip").read_bytes()


def resealed(content, change, kind="client"):
    """The archive with changed members, and checksums that fit."""
    archive = Archive.from_bytes(content, kind)
    change(archive.members)
    return archive.to_bytes()


def claiming(n):
    """An array of two numbers whose header claims another shape."""
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(2, dtype=np.float32))
    return buffer.getvalue().replace(b"(2,)", f"({n},)".encode().ljust(4)[: 4 if n < 10 else 99])


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


def test_foreign_bytes_are_refused():
    for content in (b"", b"PK", b"GIF89a", bytes(400), json.dumps({}).encode()):
        with pytest.raises(ArtefactError):
            Archive.from_bytes(content, "server")


@pytest.mark.parametrize("keep", [0, 1, 30, 200, -1])
def test_a_truncated_artefact_is_refused(client_zip, keep):
    with pytest.raises(ArtefactError, match=r"client\.zip must be whole"):
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
                content = json.dumps({**json.loads(content), "version": 4}).encode()
            new.writestr(name, content)
    with pytest.raises(ArtefactError, match=r"reads version 3 .* Got version 4"):
        Archive.from_bytes(buffer.getvalue(), "client")


def test_an_artefact_that_would_fill_the_memory_is_refused(monkeypatch, client_zip):
    monkeypatch.setattr("cipherlearn._guarded_zip.MAX_BYTES", 1000)
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
        with_json("client.json", lambda d: d.pop("feature_names")),
        with_json("client.json", lambda d: d.update(feature_names=["one too many"] * 99)),
        with_json("client.json", lambda d: d.pop("engine")),
        with_json("client.json", lambda d: d.update(engine="x")),
        with_json("client.json", lambda d: d["classes"].update(dtype="<U2000000000")),
        with_json("client.json", lambda d: d["classes"].update(dtype="V8")),
        with_json("client.json", lambda d: d.update(batch_size=True)),
        lambda members: members.update({"client.json": b"[" * 200_000}),
        lambda members: members.update({"output_gain.npy": claiming(10**14)}),
        lambda members: members.update({"output_gain.npy": claiming(1)}),
    ],
)
def test_an_incomplete_client_artefact_is_refused(client_zip, change):
    with pytest.raises(ArtefactError):
        FHEClient.from_bytes(resealed(client_zip, change))


def test_a_pickle_in_an_array_is_not_loaded(client_zip):
    buffer = io.BytesIO()
    np.save(buffer, np.array([print], dtype=object), allow_pickle=True)
    content = resealed(client_zip, lambda m: m.update({"output_bias.npy": buffer.getvalue()}))
    with pytest.raises(ArtefactError, match="must be of int64, float64 or float32"):
        FHEClient.from_bytes(content)


@pytest.mark.parametrize(
    "change",
    [
        lambda members: members.pop("program.zip"),
        lambda members: members.update({"program.zip": b"PK"}),
        # Nothing that could be compiled has a place in it.
        lambda members: members.update({"circuit.mlir": b"func.func @main() {"}),
        with_json("server.json", lambda d: d.update(rounding="up")),
        lambda members: members.pop("client.zip"),
        lambda members: members.update({"client.zip": b"PK"}),
        with_json("server.json", lambda d: d["error_probability"].update(p_error=2.0)),
        with_json("server.json", lambda d: d.pop("error_probability")),
        with_json("server.json", lambda d: d.update(published="too")),
    ],
)
def test_an_incomplete_server_artefact_is_refused(linear_artefacts, change):
    content = (linear_artefacts / "server.zip").read_bytes()
    with pytest.raises(ArtefactError):
        ServerModel.from_archive(Archive.from_bytes(resealed(content, change, "server"), "server"))


def test_a_program_that_is_not_that_of_the_clients_is_refused(artefacts, linear_artefacts):
    other = Archive.read(artefacts / "server.zip", "server").members["program.zip"]
    content = (linear_artefacts / "server.zip").read_bytes()
    changed = resealed(content, lambda m: m.update({"program.zip": other}), "server")
    with pytest.raises(ArtefactError, match="must be that of its clients"):
        ServerModel.from_archive(Archive.from_bytes(changed, "server"))


def test_parameters_that_are_not_for_the_program_are_refused(tmp_path, artefacts):
    """The digest of another program is stated, as whoever makes artefacts can."""
    archive = Archive.read(artefacts / "server.zip", "server")
    program = load_program(io.BytesIO(archive.members["program.zip"]))
    wider = dataclasses.replace(
        program,
        nodes=tuple(
            dataclasses.replace(node, weights=50 * node.weights) if type(node) is Sum else
            Lookup(node.reads, np.repeat(node.tables, 50, axis=1), 50 * node.low)
            for node in program.nodes
        ),
    )  # fmt: skip
    buffer = io.BytesIO()
    save_program(wider, buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    client = resealed(
        archive.members["client.zip"],
        with_json("client.json", lambda d: d.update(program_sha256=digest)),
    )
    change = {"program.zip": buffer.getvalue(), "client.zip": client}
    path = tmp_path / "server.zip"
    content = (artefacts / "server.zip").read_bytes()
    path.write_bytes(resealed(content, lambda m: m.update(change), "server"))
    with pytest.raises(ArtefactError):
        FHEServer(path)


@pytest.fixture
def no_kernels(monkeypatch):
    def refuse(*arguments):
        raise EngineNotFoundError("they are not here")

    monkeypatch.setattr("cipherlearn.engines.concrete_python.server.KernelRuntime", refuse)


def test_without_kernels_no_server_compiles_unasked(artefacts, no_kernels, monkeypatch):
    def compiles(*arguments, **named):
        raise AssertionError("it compiles")

    monkeypatch.setattr("cipherlearn.engines.concrete_python.server.CompiledServer", compiles)
    monkeypatch.setattr(
        "cipherlearn.engines.concrete_python._circuit.compile_circuit", compiles, raising=True
    )
    with pytest.raises(UnsupportedByEngineError, match=r"they are not here.*--runtime compiled"):
        FHEServer(artefacts / "server.zip")
    with pytest.raises(ValueError, match="runtime must be"):
        FHEServer(artefacts / "server.zip", runtime="auto")


def test_without_kernels_a_model_is_exported_all_the_same(tmp_path, deployed_linear, no_kernels):
    export(deployed_linear, tmp_path, n_test_rows=1)
    assert (tmp_path / "server.zip").exists()


def test_a_server_compiles_the_program_where_it_is_asked_to(artefacts, labelled_rows):
    server = FHEServer(artefacts / "server.zip", runtime="compiled")
    client = FHEClient(artefacts / "client.zip")
    assert server.runtime == "compiled"
    client.generate_keys()
    server.add_keys(client.evaluation_keys())
    X = labelled_rows[0][:2]
    result = client.decrypt(list(server.evaluate(client.encrypt(X))), len(X))
    program = load_program(
        io.BytesIO(Archive.read(artefacts / "server.zip", "server").members["program.zip"])
    )
    codes = client._quantize(X)
    np.testing.assert_array_equal(result, program.scaler(program.run(codes)))


def test_a_server_that_compiles_to_other_parameters_is_refused(tmp_path, artefacts):
    change = with_json("server.json", lambda d: d["error_probability"].update(p_error=2.0**-10))
    content = (artefacts / "server.zip").read_bytes()
    path = tmp_path / "server.zip"
    path.write_bytes(resealed(content, change, "server"))
    with pytest.raises(ArtefactError, match="chose other cryptographic parameters"):
        FHEServer(path, runtime="compiled")


def test_an_artefact_of_another_engine_is_refused(client_zip):
    change = with_json("client.json", lambda d: d["engine"].update(name="another-engine"))
    with pytest.raises(ArtefactError, match="compiled for another-engine"):
        FHEClient.from_bytes(resealed(client_zip, change))


# ---------------------------------------------------------------------- security


def key(specs, kind, i=0):
    return specs["keyset"][kind][i]["params"]


def ciphertext(specs, gate="inputs"):
    return specs["circuits"][0][gate][0]["typeInfo"]["lweCiphertext"]


def other_key_first(specs):
    keys = specs["keyset"]["lweSecretKeys"]
    keys.insert(0, {"id": 1, "params": {**keys[0]["params"], "lweDimension": 8}})


WEAKENED = {
    "less noise": lambda s: key(s, "lweKeyswitchKeys").update(variance=1e-30),
    "no noise": lambda s: key(s, "lweBootstrapKeys").update(variance=0.0),
    "negative noise": lambda s: key(s, "lweBootstrapKeys").update(variance=-1.0),
    "noise that wraps": lambda s: ciphertext(s)["encryption"].update(variance=1e40),
    "infinite noise": lambda s: ciphertext(s)["encryption"].update(variance=float("inf")),
    "noise that is none": lambda s: ciphertext(s)["encryption"].update(variance=float("nan")),
    "less noise in inputs": lambda s: ciphertext(s)["encryption"].update(variance=1e-32),
    "shorter keys": lambda s: key(s, "lweSecretKeys", -1).update(lweDimension=300),
}
MISFITS = {
    "another key's dimension": lambda s: ciphertext(s)["encryption"].update(lweDimension=10),
    "a key out of its place": other_key_first,
    "a key twice": lambda s: s["keyset"]["lweSecretKeys"].append(s["keyset"]["lweSecretKeys"][0]),
    "keys of another kind": lambda s: key(s, "lweSecretKeys").update(keyType="sparse"),
    "a plaintext beside": lambda s: s["circuits"][0]["inputs"][0]["typeInfo"].update(
        plaintext={"shape": {"dimensions": [1, 4]}, "integerPrecision": 64, "isSigned": False}
    ),
    "something else": lambda s: s.update(more=1),
    "something deep": lambda s: ciphertext(s)["encryption"].update(more=1),
    "another modulus": lambda s: ciphertext(s)["encryption"].update(modulus={"powerOfTwo": 3}),
    "another shape": lambda s: ciphertext(s)["abstractShape"].update(dimensions=[1, 1000]),
    "another output": lambda s: ciphertext(s, "outputs")["abstractShape"].update(dimensions=[1, 1]),
    "a smaller ring": lambda s: key(s, "lweBootstrapKeys").update(polynomialSize=8),
    "a key that is not there": lambda s: ciphertext(s)["encryption"].update(keyId=7),
    "a number as text": lambda s: ciphertext(s)["encryption"].update(variance="Infinity"),
    "no circuit": lambda s: s.update(circuits=[]),
    "no input": lambda s: s["circuits"][0].update(inputs=[]),
    "a packing key": lambda s: s["keyset"].update(packingKeyswitchKeys=[{}]),
}


@pytest.mark.parametrize("weaken", WEAKENED.values(), ids=WEAKENED)
def test_parameters_of_less_than_128_bits_are_refused(artefacts, weaken):
    content = (artefacts / "client.zip").read_bytes()
    with pytest.raises(ArtefactError, match=r"128 bits of security.*could read what you encrypt"):
        FHEClient.from_bytes(resealed(content, with_json("specs.json", weaken)))


@pytest.mark.parametrize("change", MISFITS.values(), ids=MISFITS)
def test_parameters_that_say_more_or_other_than_is_checked_are_refused(artefacts, change):
    content = (artefacts / "client.zip").read_bytes()
    with pytest.raises(ArtefactError):
        FHEClient.from_bytes(resealed(content, with_json("specs.json", change)))


def test_the_engine_gets_the_rewritten_specs(artefacts):
    # JSON that repeats a name means different things to different parsers.
    def repeat(members):
        members["specs.json"] = members["specs.json"].replace(
            b'"lweDimension": ', b'"lweDimension": 8, "lweDimension": '
        )

    original = (artefacts / "client.zip").read_bytes()
    client = FHEClient.from_bytes(resealed(original, repeat))
    assert client._model.specs == FHEClient.from_bytes(original)._model.specs


def test_the_engine_chooses_no_more_noise_than_the_curve_asks(artefacts):
    specs = json.loads(Archive.read(artefacts / "client.zip", "client").members["specs.json"])
    dimensions = [k["params"]["lweDimension"] for k in specs["keyset"]["lweSecretKeys"]]
    for kind in ("lweBootstrapKeys", "lweKeyswitchKeys"):
        for each in specs["keyset"][kind]:
            expected = _SLOPE * dimensions[each["outputId"]] + _INTERCEPT
            assert math.isclose(0.5 * math.log2(each["params"]["variance"]), expected)


def test_preprocessing_that_skops_cannot_read_is_refused(artefacts):
    content = (artefacts / "client.zip").read_bytes()
    for damaged in (b"junk", b"PK\x05\x06" + bytes(18)):
        change = {"preprocessing.skops": damaged}
        client = FHEClient.from_bytes(resealed(content, lambda m, change=change: m.update(change)))
        client.generate_keys()
        with pytest.raises(ArtefactError, match=r"preprocessing\.skops must be whole"):
            client.encrypt([[0.0] * 4])


# ---------------------------------------------------------------------- versions


@pytest.mark.parametrize("kind", ["client", "server"])
def test_artefacts_of_version_1_are_refused_with_the_line_that_exports_again(kind):
    path = Path(__file__).parents[1] / "data" / "artefacts_v1" / f"{kind}.zip"
    with pytest.raises(ArtefactError, match=r"Got version 1.*deployment\.export\(model, dir"):
        Archive.read(path, kind)
