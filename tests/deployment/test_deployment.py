"""Client and server in one process: what they exchange, what they refuse, what they keep."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import io
import stat
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from cases import TINY, blobs
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from cipherlearn import NeuralNetClassifier, NeuralNetRegressor, NotCompiledError, load_program
from cipherlearn.deployment import (
    ArtefactError,
    FHEClient,
    FHEServer,
    MessageError,
    UnknownKeyError,
    export,
)
from cipherlearn.deployment import _export as export_module
from cipherlearn.deployment._client_keys import ClientKeys
from cipherlearn.deployment._messages import Kind, Message
from cipherlearn.deployment.artefacts._archive import Archive
from cipherlearn.deployment.artefacts._model import _FIELDS

LINEAR = {**TINY, "module__n_layers": 1, "module__n_accum_bits": 8}


@pytest.fixture(scope="module")
def server(artefacts, client):
    server = FHEServer(artefacts / "server.zip")
    server.add_keys(client.evaluation_keys())
    return server


@pytest.fixture(scope="module")
def linear_server(linear_artefacts, linear_client):
    server = FHEServer(linear_artefacts / "server.zip")
    server.add_keys(linear_client.evaluation_keys())
    return server


def client_and_server(directory):
    client, server = FHEClient(directory / "client.zip"), FHEServer(directory / "server.zip")
    client.generate_keys()
    server.add_keys(client.evaluation_keys())
    return client, server


# ---------------------------------------------------------------------- predictions


def test_a_pipeline_predicts_encrypted_what_it_predicts_in_the_clear(
    deployed_pipeline, labelled_rows, client, server
):
    X, _ = labelled_rows
    predicted = client.predict(X[:4], server.evaluate)
    np.testing.assert_array_equal(predicted, deployed_pipeline.predict(X[:4]))
    assert predicted.dtype == deployed_pipeline.predict(X[:4]).dtype


def test_probabilities_are_those_of_the_model(
    deployed_linear, labelled_rows, linear_client, linear_server
):
    X, _ = labelled_rows
    predicted = linear_client.predict_proba(X, linear_server.evaluate)
    np.testing.assert_array_equal(predicted, deployed_linear.predict_proba(X))


@pytest.mark.parametrize("n_rows", [1, 2, 3, 60])
def test_batches_are_padded_and_cut(
    deployed_linear, labelled_rows, linear_client, linear_server, n_rows
):
    X = labelled_rows[0][:n_rows]
    np.testing.assert_array_equal(
        linear_client.predict(X, linear_server.evaluate), deployed_linear.predict(X)
    )


@pytest.mark.parametrize("n_targets", [1, 2])
def test_a_regressor_predicts_in_the_units_of_its_targets(tmp_path, n_targets):
    X, _ = blobs()
    y = 1000 * X[:, :n_targets] + 5
    reg = NeuralNetRegressor(**LINEAR).fit(X, y.squeeze())
    reg.compile(batch_size=3)
    export(reg, tmp_path)
    client, server = client_and_server(tmp_path)
    np.testing.assert_array_equal(client.predict(X[:7], server.evaluate), reg.predict(X[:7]))
    with pytest.raises(AttributeError, match=r"predict_proba is for a classifier"):
        client.predict_proba(X[:7], server.evaluate)


@pytest.mark.parametrize(
    "labels", [[False, True], [3, 7], [1.0, 2.0], ["no", "ja"], np.array(["a", "bc"], dtype=object)]
)
def test_labels_keep_their_type(tmp_path, labels):
    X, y = blobs(2)
    clf = NeuralNetClassifier(**LINEAR).fit(X, np.asarray(labels)[y])
    clf.compile()
    export(clf, tmp_path)
    client, server = client_and_server(tmp_path)
    predicted, expected = client.predict(X[:4], server.evaluate), clf.predict(X[:4])
    np.testing.assert_array_equal(predicted, expected)
    assert predicted.dtype == expected.dtype


@pytest.mark.parametrize("options", [{"global_p_error": 1e-6}, {"p_error": 1e-6, "batch_size": 2}])
def test_a_server_compiles_what_was_compiled_before_export(tmp_path, deployed_pipeline, options):
    X, y = blobs()
    clf = NeuralNetClassifier(**TINY).fit(X, y)
    clf.compile(**options)
    export(clf, tmp_path, n_test_rows=3)
    client, server = client_and_server(tmp_path)
    np.testing.assert_array_equal(client.predict(X[:3], server.evaluate), clf.predict(X[:3]))
    assert server.description["error_probability"]["p_error"] == options.get("p_error")


def test_approximate_rounding_is_exported(tmp_path):
    X, y = blobs()
    rounding = {"module__n_accum_bits": 6, "module__rounding_bits": 4}
    clf = NeuralNetClassifier(**{**TINY, **rounding}).fit(X, y)
    clf.compile(rounding="approximate")
    export(clf, tmp_path)
    _, server = client_and_server(tmp_path)
    assert server.description["rounding"] == "approximate"
    assert server.description["flip_rate"] == clf.circuit_.flip_rate


def test_frames_with_feature_names_are_checked_like_scikit_learn_does(tmp_path):
    X, y = blobs()
    frame = pd.DataFrame(X, columns=list("abcd"))
    clf = NeuralNetClassifier(**LINEAR).fit(frame, y)
    clf.compile()
    export(clf, tmp_path)
    client, server = client_and_server(tmp_path)
    np.testing.assert_array_equal(client.predict(frame[:3], server.evaluate), y[:3])
    with pytest.raises(ValueError, match="feature names should match"):
        client.predict(frame[["b", "a", "c", "d"]], server.evaluate)


# ---------------------------------------------------------------------- export


def test_an_export_of_an_unfinished_or_foreign_model_is_refused(tmp_path, labelled_rows):
    X, y = labelled_rows
    with pytest.raises(NotFittedError):
        export(NeuralNetClassifier(), tmp_path)
    with pytest.raises(NotCompiledError, match=r"Call compile\(\)"):
        export(NeuralNetClassifier(**LINEAR).fit(X, y), tmp_path)
    with pytest.raises(TypeError, match="Got LogisticRegression"):
        export(LogisticRegression().fit(X, y), tmp_path)
    with pytest.raises(TypeError, match="Got LogisticRegression"):
        export(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y), tmp_path)
    assert not list(tmp_path.iterdir())


def test_labels_that_json_does_not_know_are_refused(tmp_path):
    X, y = blobs(2)
    days = np.array(["2026-01-01", "2026-01-02"], dtype="datetime64[D]")
    clf = NeuralNetClassifier(**LINEAR).fit(X, days[y])
    clf.compile()
    with pytest.raises(ArtefactError, match="Labels must be strings, numbers or booleans"):
        export(clf, tmp_path)


def times_two(X):
    return 2 * X


def test_steps_of_unknown_types_are_refused_unless_both_sides_trust_them(tmp_path, labelled_rows):
    pipe = make_pipeline(FunctionTransformer(times_two), NeuralNetClassifier(**LINEAR))
    pipe.fit(*labelled_rows)[-1].compile()
    with pytest.raises(ArtefactError, match=r"Got also \['test_deployment.times_two'\]"):
        export(pipe, tmp_path)
    trusted = ["test_deployment.times_two"]
    export(pipe, tmp_path, trusted=trusted)
    wary = FHEClient(tmp_path / "client.zip")
    wary.generate_keys()  # needs no preprocessing
    with pytest.raises(ArtefactError, match="named as trusted"):
        wary.encrypt(labelled_rows[0])
    trusting = FHEClient(tmp_path / "client.zip", trusted=trusted)
    trusting.generate_keys()
    assert len(list(trusting.encrypt(labelled_rows[0][:2]))) == 2


def test_a_step_that_does_nothing_does_not_travel(tmp_path, labelled_rows):
    pipe = make_pipeline("passthrough", NeuralNetClassifier(**LINEAR)).fit(*labelled_rows)
    pipe[-1].compile()
    export(pipe, tmp_path)
    assert FHEClient(tmp_path / "client.zip")._model.preprocessing is None


def test_a_failed_self_test_leaves_what_was_there(
    tmp_path, monkeypatch, deployed_linear, linear_artefacts
):
    export(deployed_linear, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    wrong = export_module.raw_outputs

    def off_by_one(client, codes, transport):
        return wrong(client, codes, transport) + 1

    monkeypatch.setattr(export_module, "raw_outputs", off_by_one)
    with pytest.raises(ArtefactError, match="On 2 of 2 encrypted rows they did not"):
        export(deployed_linear, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_client_artefact_holds_what_a_client_needs_and_nothing_else(artefacts):
    archive = Archive.read(artefacts / "client.zip", "client")
    assert set(archive.members) == {
        "client.json",
        "specs.json",
        "input_feature.npy",
        "input_thresholds.npy",
        "output_gain.npy",
        "output_bias.npy",
        "output_offset.npy",
        "preprocessing.skops",
    }
    # The specs are rewritten from shapes and parameters: weights have no place in them.
    assert set(archive.json("specs.json")) == {"keyset", "circuits"}
    assert set(archive.json("client.json")) == set(_FIELDS)


def test_an_exported_program_can_be_loaded_without_an_engine(
    artefacts, deployed_pipeline, tmp_path
):
    members = Archive.read(artefacts / "server.zip", "server").members
    program = load_program(io.BytesIO(members["program.zip"]))
    X = np.random.default_rng(0).normal(size=(20, 4))
    np.testing.assert_array_equal(program(X), deployed_pipeline[-1].program_(X))


# ---------------------------------------------------------------------- messages


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
    forgetful = FHEServer(linear_artefacts / "server.zip", max_loaded_keys=2)
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
    np.testing.assert_array_equal(linear_client.labels(outputs), deployed_linear.predict(X[:3]))


@pytest.mark.parametrize("kind", ["linear", "pipeline"])
def test_threads_of_many_clients_get_their_own_results(request, labelled_rows, kind):
    X, _ = labelled_rows
    directory = request.getfixturevalue("artefacts" if kind == "pipeline" else "linear_artefacts")
    model = request.getfixturevalue(f"deployed_{kind}")
    server = FHEServer(directory / "server.zip")
    clients = [FHEClient(directory / "client.zip") for _ in range(4)]
    for each in clients:
        each.generate_keys()
        server.add_keys(each.evaluation_keys())

    def predict(i):
        rows = X[3 * i : 3 * i + 3]
        predicted = clients[i % len(clients)].predict(rows, server.evaluate)
        return (predicted == model.predict(rows)).all()

    with ThreadPoolExecutor(len(clients)) as threads:
        assert all(threads.map(predict, range(16)))


# ---------------------------------------------------------------------- keys


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


@pytest.mark.parametrize(
    ("saved", "given", "reason"),
    [("right", "wrong", "passphrase is wrong"), ("right", None, "Give its passphrase")],
)
def test_a_wrong_passphrase_is_refused(tmp_path, linear_client, saved, given, reason):
    linear_client.save_keys(tmp_path / "my.keys", saved)
    with pytest.raises(ArtefactError, match=reason):
        linear_client.load_keys(tmp_path / "my.keys", given)


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


# ---------------------------------------------------------------------- imports

BLOCKED = """
    import sys
    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in {blocked}:
                raise ModuleNotFoundError(f"{{name}} is blocked")
    sys.meta_path.insert(0, Blocker())
"""
TRAINING = {"torch", "skorch", "brevitas", "sklearn", "pandas", "scipy", "matplotlib"}


def test_client_and_server_need_nothing_that_trains(
    linear_artefacts, deployed_linear, labelled_rows
):
    X, _ = labelled_rows
    code = f"""
    from cipherlearn.deployment import FHEClient, FHEServer
    client = FHEClient({str(linear_artefacts / "client.zip")!r})
    server = FHEServer({str(linear_artefacts / "server.zip")!r})
    client.generate_keys()
    server.add_keys(client.evaluation_keys())
    print(*client.predict({X[:3].tolist()!r}, server.evaluate))
    """
    script = textwrap.dedent(BLOCKED).format(blocked=TRAINING) + textwrap.dedent(code)
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == deployed_linear.predict(X[:3]).tolist()


def test_importing_the_package_imports_neither_torch_nor_scikit_learn():
    code = "import cipherlearn, cipherlearn.deployment, sys; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"torch", "sklearn", "concrete", "scipy"} & set(result.stdout.split())


def test_public_names_are_all_there():
    import cipherlearn
    from cipherlearn import deployment

    for module in (cipherlearn, deployment):
        for name in module.__all__:
            assert getattr(module, name) is not None
        with pytest.raises(AttributeError, match="no_such_name"):
            module.no_such_name  # noqa: B018
    assert set(cipherlearn.__all__) <= set(dir(cipherlearn))


def test_outputs_that_are_probabilities_stay_as_they_are(tmp_path, labelled_rows):
    X, y = labelled_rows
    clf = NeuralNetClassifier(**LINEAR, criterion=torch.nn.MultiMarginLoss).fit(X, y)
    clf.compile()
    export(clf, tmp_path)
    client, server = client_and_server(tmp_path)
    np.testing.assert_array_equal(
        client.predict_proba(X[:3], server.evaluate), clf.predict_proba(X[:3])
    )
