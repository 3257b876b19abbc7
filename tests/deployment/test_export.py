"""Which models are exported, and what their artefacts hold."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import io

import numpy as np
import pytest
from cases import LINEAR, blobs
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from cipherlearn import NeuralNetClassifier, NotCompiledError, load_program
from cipherlearn.deployment import ArtefactError, FHEClient, export
from cipherlearn.deployment import _export as export_module
from cipherlearn.deployment.artefacts._archive import Archive
from cipherlearn.deployment.artefacts._description import _FIELDS


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
    with pytest.raises(ArtefactError, match=r"Got also \['test_export.times_two'\]"):
        export(pipe, tmp_path)
    trusted = ["test_export.times_two"]
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
        "input_0_codes.npy",
        "input_1_codes.npy",
        "input_feature.npy",
        "input_thresholds.npy",
        "component_factor.npy",
        "component_shift.npy",
        "component_weights.npy",
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
