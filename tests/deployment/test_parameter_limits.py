"""Parameters on which the engine aborts, or never ends, do not reach it."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import json

import numpy as np
import pytest

from cipherlearn._guarded_zip import array_bytes
from cipherlearn.deployment import ArtefactError, FHEClient, MessageError
from cipherlearn.deployment._messages import Frame, Kind, Message
from cipherlearn.deployment.artefacts._archive import Archive
from cipherlearn.deployment.artefacts._contents import ServerModel
from cipherlearn.deployment.artefacts._specs import _INTERCEPT, _SLOPE, read_specs
from cipherlearn.engines.kernels import Parameters


@pytest.fixture(scope="module")
def archive(artefacts):
    return Archive.read(artefacts / "client.zip", "client")


def opened(archive, **changes):
    """A client of an artefact with members that were changed, and checksums that fit."""
    members = dict(archive.members)
    for name, change in changes.items():
        (member,) = (each for each in members if each.partition(".")[0] == name)
        if isinstance(change, np.ndarray):
            members[member] = array_bytes(change)
        else:
            value = json.loads(members[member])
            change(value)
            members[member] = json.dumps(value).encode()
    return FHEClient.from_bytes(Archive("client", members).to_bytes())


def keyset(polynomial_size, k=1, n=771, levels=1, base_log=23, kind="lweBootstrapKeys"):
    """Change the first bootstrap key, and the secret keys with it."""

    def change(specs):
        keys, dimension = specs["keyset"], k * polynomial_size
        bootstrap, (switch,) = keys["lweBootstrapKeys"][0], keys["lweKeyswitchKeys"]
        for key, size in ((bootstrap["outputId"], dimension), (bootstrap["inputId"], n)):
            keys["lweSecretKeys"][key]["params"]["lweDimension"] = size
        bootstrap["params"] |= {
            "polynomialSize": polynomial_size,
            "glweDimension": k,
            "inputLweDimension": n,
            "variance": variance(dimension),
        }
        switch["params"] |= {
            "inputLweDimension": dimension,
            "outputLweDimension": n,
            "variance": variance(n),
        }
        keys[kind][0]["params"] |= {"levelCount": levels, "baseLog": base_log}
        for side in ("inputs", "outputs"):
            for gate in specs["circuits"][0][side]:
                ciphertext = gate["typeInfo"]["lweCiphertext"]
                ciphertext["encryption"] |= {
                    "lweDimension": dimension,
                    "variance": variance(dimension),
                }
                if ciphertext["compression"] == "none":
                    for shape in (ciphertext["concreteShape"], gate["rawInfo"]["shape"]):
                        shape["dimensions"][-1] = dimension + 1

    return change


def variance(dimension):
    return 2.0 ** (2 * (_SLOPE * dimension + _INTERCEPT)) if dimension < 2500 else 2.0**-120


REFUSED = {
    "a polynomial of three coefficients": keyset(3, 683),
    "no power of two": keyset(1536),
    "a short polynomial": keyset(128, 16),
    "many polynomials": keyset(256, 2048),
    "a long polynomial": keyset(2**18),
    "levels of more bits than a word has": keyset(2048, levels=64, base_log=64),
    "keyswitch levels of more bits": keyset(2048, levels=32, base_log=2, kind="lweKeyswitchKeys"),
    "keys of many gigabytes": keyset(2**17, n=4000),
    "keys that take hours": keyset(256, 500, n=4000),
}


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED)
def test_parameters_beyond_the_engine_are_refused(archive, change):
    with pytest.raises(ArtefactError):
        opened(archive, specs=change)


@pytest.mark.parametrize("name", ["evaluation_keys", "ciphertext"])
def test_messages_for_a_server_are_as_long_as_the_parameters_need(artefacts, name):
    server = Archive.read(artefacts / "server.zip", "server")
    client = Archive.from_bytes(server.members["client.zip"], "client")
    description = client.json("client.json")
    description["frames"][name]["sizes"][-1] += 800_000_000
    client.members["client.json"] = json.dumps(description).encode()
    server.members["client.zip"] = client.to_bytes()
    with pytest.raises(ArtefactError, match=f"bytes of {name}"):
        ServerModel.from_archive(server)


@pytest.mark.parametrize("polynomial_size", [256, 512])
def test_such_parameters_are_taken_within_the_engines_range(archive, polynomial_size):
    key = Parameters.from_specs(archive.members["specs.json"]).bootstrap_keys[0]
    change = keyset(polynomial_size, key.k * key.polynomial_size // polynomial_size)
    assert opened(archive, specs=change).n_outputs == 3


@pytest.mark.parametrize("dimension", [1024, 4096])
def test_a_polynomial_must_divide_its_dimension_exactly(archive, dimension):
    def change(specs):
        keyset(dimension)(specs)
        specs["keyset"]["lweBootstrapKeys"][0]["params"]["polynomialSize"] = 6144 - dimension

    with pytest.raises(ArtefactError):
        opened(archive, specs=change)


def test_large_rows_and_messages_are_refused(archive):
    specs = archive.json("specs.json")
    gates = [specs["circuits"][0][side] for side in ("inputs", "outputs")]
    sizes = [[gate["typeInfo"]["lweCiphertext"]["abstractShape"]["dimensions"][1] for gate in side]
             for side in gates]  # fmt: skip
    for size, batch_size in ((2**17, 1), (sizes[0][0], 2**20), (1, 2**40)):
        for side in gates:
            for gate in side:
                ciphertext = gate["typeInfo"]["lweCiphertext"]
                words = ciphertext["concreteShape"]["dimensions"][-1]
                ciphertext["abstractShape"]["dimensions"][:] = [batch_size, size]
                for shape in (ciphertext["concreteShape"], gate["rawInfo"]["shape"]):
                    shape["dimensions"][:] = [batch_size, size, words]
        changed = [[size] * len(side) for side in sizes]
        with pytest.raises(ArtefactError):
            read_specs(json.dumps(specs).encode(), *changed, batch_size)


def test_secret_keys_without_a_use_are_refused(archive):
    def change(specs):
        keys = specs["keyset"]["lweSecretKeys"]
        keys.append({"id": len(keys), "params": {**keys[0]["params"], "lweDimension": 2**17}})

    with pytest.raises(ArtefactError, match="secret key of an artefact must have a use"):
        opened(archive, specs=change)


def test_codes_that_no_input_holds_are_refused(archive):
    (n_codes,) = opened(archive)._model.quantizer.feature.shape
    feature, thresholds = np.zeros(n_codes + 1, np.int64), np.zeros((n_codes + 1, 1))
    with pytest.raises(ArtefactError, match=f"all of the {n_codes + 1} codes"):
        opened(archive, input_feature=feature, input_thresholds=thresholds)


@pytest.mark.parametrize("name", ["", "x" * 200, "f\x1b[2J", "a b", "é", 3])
def test_a_circuit_has_the_name_of_a_function(archive, name):
    with pytest.raises(ArtefactError):
        opened(archive, specs=lambda specs: specs["circuits"][0].update(name=name))


def test_codes_that_an_input_cannot_hold_are_refused(archive):
    (n_codes,) = opened(archive)._model.quantizer.feature.shape
    width = min(gate.width for gate in Parameters.from_specs(archive.members["specs.json"]).inputs)
    thresholds = np.tile(np.arange(2.0**width), (n_codes, 1))
    with pytest.raises(ArtefactError, match=rf"holds codes below {2**width}\. Got {2**width}"):
        opened(archive, input_thresholds=thresholds)


@pytest.mark.parametrize("position", range(3))
def test_a_frame_that_gives_the_engine_other_structure_is_refused(archive, position):
    """The structure of results is put around what a server sends, and given to the engine."""

    def change(described):
        start, content = described["frames"]["result"]["fixed"][0]
        changed = bytearray.fromhex(content)
        changed[8 * position] ^= 1
        described["frames"]["result"]["fixed"][0] = [start, changed.hex()]

    with pytest.raises(ArtefactError, match="frame of results"):
        opened(archive, client=change)


def test_a_frame_that_leaves_structure_to_the_sender_is_refused(archive):
    def change(described):
        described["frames"]["result"]["fixed"] = []

    with pytest.raises(ArtefactError, match="frame of results"):
        opened(archive, client=change)


def test_a_frame_may_fix_numbers(archive, client):
    """Results of which some number never changes have it in their frame."""
    frame = client._model.frames["result"]
    start, content = frame.fixed[0]
    longer = Frame(frame.sizes, ((start, content + bytes(8)), *frame.fixed[1:]))
    opened(archive, client=lambda described: described["frames"].update(result=longer.to_json()))


@pytest.mark.parametrize(
    "frame",
    [
        {"sizes": ["8"], "fixed": []},
        {"sizes": [8.0], "fixed": []},
        {"sizes": [8], "fixed": [["0", "00"]]},
        {"sizes": [True], "fixed": []},
        {"sizes": [float("inf")], "fixed": []},
    ],
)
def test_numbers_of_a_frame_are_integers(frame):
    with pytest.raises(ArtefactError):
        Frame.from_json(frame)


@pytest.mark.parametrize(
    "classes",
    [
        {"dtype": "<U4096", "values": ["a"] * 70_000},
        {"dtype": "object", "values": [{}, [], None]},
        {"dtype": "object", "values": "abc"},
        {"dtype": "<i8", "values": [1, 2, 10**30]},
        {"dtype": "(3,)i8", "values": [1, 2, 3]},
        {"dtype": "M8[s]", "values": [1, 2, 3]},
        {"dtype": ["a"], "values": [1, 2, 3]},
    ],
)
def test_odd_labels_are_refused(archive, classes):
    with pytest.raises(ArtefactError):
        opened(archive, client=lambda described: described.update(classes=classes))


@pytest.mark.parametrize("gain", [3e38, 1e30])
def test_results_beyond_float32_are_errors_of_the_result(linear_artefacts, gain):
    archive = Archive.read(linear_artefacts / "client.zip", "client")
    scaler = FHEClient.from_bytes(archive.to_bytes())._model.scaler
    gains, offsets = np.full_like(scaler.gain, gain), np.full_like(scaler.offset, 2**50)
    client = opened(archive, output_gain=gains, output_offset=offsets)
    client.generate_keys()
    payload = bytes(client._model.frames["result"].n_payload)
    scope, key = bytes.fromhex(client.model_id), bytes.fromhex(client.key_id)
    with pytest.raises(MessageError, match="Outputs must fit float32"):
        client.decrypt([Message(Kind.RESULT, scope, key, payload).to_bytes()], 2)


def test_the_limits_leave_room_for_what_is_exported(archive):
    parameters = Parameters.from_specs(archive.members["specs.json"])
    assert parameters.key_bytes < 2**32 / 10
