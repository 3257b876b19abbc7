"""The command line, as a user types it."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from cases import TINY, blobs
from serving import Service
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from cipherlearn import NeuralNetClassifier, NeuralNetRegressor
from cipherlearn.cli import main
from cipherlearn.deployment import export

LINEAR = {**TINY, "module__n_layers": 1, "module__n_accum_bits": 8}
NAMES = ["length", "width", "weight", "age"]


@pytest.fixture(scope="module")
def table():
    X, y = blobs()
    return pd.DataFrame(X, columns=NAMES), np.array(["ant", "bee", "cow"])[y]


@pytest.fixture(scope="module")
def named(table, tmp_path_factory):
    """A model that was trained with feature names, and its artefacts."""
    clf = NeuralNetClassifier(**LINEAR).fit(*table)
    clf.compile()
    directory = tmp_path_factory.mktemp("named")
    export(clf, directory)
    return clf, directory


def run(capsys, *arguments):
    main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    return shown.out + shown.err


def fails(capsys, *arguments):
    with pytest.raises(SystemExit) as error:
        main([str(argument) for argument in arguments])
    assert error.value.code not in (0, None)
    # argparse prints; our own errors are the exit code's text.
    return f"{error.value.code} {capsys.readouterr().err}"


@pytest.mark.parametrize("command", [(), ("export",), ("serve",), ("keygen",), ("predict",)])
def test_help_explains(capsys, command):
    with pytest.raises(SystemExit) as error:
        main([*command, "--help"])
    assert error.value.code == 0
    shown = capsys.readouterr().out
    assert len(shown) > 500
    assert "None" not in shown


def test_a_missing_command_is_an_error(capsys):
    assert "COMMAND" in fails(capsys)


def test_the_program_can_be_run():
    for program in ([sys.executable, "-m", "cipherlearn"],):
        result = subprocess.run([*program, "--version"], capture_output=True, text=True, check=True)
        assert re.fullmatch(r"cipherlearn \d+\.\d+\.\d+\n", result.stdout)


@pytest.mark.parametrize("suffix", ["joblib", "skops"])
def test_export_compiles_and_writes_both_artefacts(capsys, tmp_path, table, suffix):
    clf = NeuralNetClassifier(**LINEAR).fit(*table)
    path = tmp_path / f"model.{suffix}"
    {"joblib": joblib.dump, "skops": skops.io.dump}[suffix](clf, path)
    trusted = [] if suffix == "joblib" else skops.io.get_untrusted_types(file=path)
    flags = [
        "--batch-size",
        "4",
        "--p-error",
        "0.001",
        *(["--trusted", *trusted] if trusted else []),
    ]
    shown = run(capsys, "export", path, tmp_path / "out", *flags)
    assert "client.zip" in shown
    assert "server.zip" in shown
    described = json.loads(run(capsys, "inspect", tmp_path / "out" / "server.zip"))
    assert described["artefact"] == "server"
    assert described["batch_size"] == 4
    assert described["error_probability"]["p_error"] == 0.001


def test_options_that_come_too_late_are_refused(capsys, tmp_path, named):
    path = tmp_path / "model.joblib"
    joblib.dump(named[0], path)
    assert "compiled already" in fails(capsys, "export", path, tmp_path, "--batch-size", "3")


def test_export_of_an_unfitted_model_says_so(capsys, tmp_path):
    path = tmp_path / "model.joblib"
    joblib.dump(NeuralNetClassifier(), path)
    assert "is not fitted yet" in fails(capsys, "export", path, tmp_path)


def test_inspect_shows_what_a_client_must_know(capsys, named):
    clf, directory = named
    described = json.loads(run(capsys, "inspect", directory / "client.zip"))
    assert described["artefact"] == "client"
    assert described["feature_names"] == NAMES
    assert described["classes"]["values"] == clf.classes_.tolist()
    server = json.loads(run(capsys, "inspect", directory / "server.zip"))
    assert server["model_id"] == described["model_id"]
    assert server["keyset_id"] == described["keyset_id"]


def test_inspect_refuses_other_files(capsys, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n")
    assert "rows.csv must be whole" in fails(capsys, "inspect", path)
    assert "No such file" in fails(capsys, "inspect", tmp_path / "none.zip")


def test_keygen_makes_keys_once(capsys, tmp_path, named):
    _, directory = named
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("correct horse\n")
    keys, evaluation = tmp_path / "my.keys", tmp_path / "evaluation.keys"
    flags = ("--passphrase-file", passphrase, "--evaluation-keys", evaluation)
    shown = run(capsys, "keygen", directory / "client.zip", keys, *flags)
    assert re.search(r"id [0-9a-f]{64}", shown)
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    assert evaluation.stat().st_size > 0
    assert "exists" in fails(capsys, "keygen", directory / "client.zip", keys, *flags)
    before = keys.read_bytes()
    flags = ("--evaluation-keys", keys)
    shown = fails(capsys, "keygen", directory / "client.zip", tmp_path / "new.keys", *flags)
    assert "may hold somebody's keys" in shown
    assert keys.read_bytes() == before
    assert not (tmp_path / "new.keys").exists()


def test_a_passphrase_is_asked_for_twice_when_keys_are_made(capsys, tmp_path, named, monkeypatch):
    _, directory = named
    arguments = ("keygen", directory / "client.zip", tmp_path / "my.keys", "--ask-passphrase")
    given = iter(["one", "another", "same", "same"])
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(given))
    assert "twice alike" in fails(capsys, *arguments)
    assert not (tmp_path / "my.keys").exists()
    run(capsys, *arguments)
    assert (tmp_path / "my.keys").exists()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_predict_reads_and_writes_tables(capsys, tmp_path, named, table, suffix):
    clf, directory = named
    X, _ = table
    # Columns in another order, and one more.
    rows = X.iloc[:5, ::-1].assign(note="x")
    source, target = tmp_path / f"rows.{suffix}", tmp_path / f"predictions.{suffix}"
    rows.to_csv(source, index=False) if suffix == "csv" else rows.to_parquet(source)
    flags = ("--server", directory / "server.zip", "--proba", "--quiet")
    assert "5 predictions" in run(capsys, "predict", source, target, *flags)
    written = pd.read_csv(target) if suffix == "csv" else pd.read_parquet(target)
    assert written["prediction"].tolist() == clf.predict(X[:5]).tolist()
    columns = [f"probability_{label}" for label in clf.classes_]
    np.testing.assert_allclose(written[columns], clf.predict_proba(X[:5]))


def test_predict_asks_a_service_and_keeps_its_keys(capsys, tmp_path, named, table):
    clf, directory = named
    X, _ = table
    X[:3].to_csv(tmp_path / "rows.csv", index=False)
    token = tmp_path / "token"
    token.write_text("secret\n")
    with Service(directory / "server.zip", tmp_path / "keys", token="secret") as service:
        arguments = ("predict", tmp_path / "rows.csv", tmp_path / "out.csv", "--url", service.url)
        assert "401" in fails(capsys, *arguments)
        for _ in range(2):
            run(capsys, *arguments, "--keys", tmp_path / "my.keys", "--token-file", token)
        assert len(list((tmp_path / "keys").glob("*[!k]"))) == 1
    assert pd.read_csv(tmp_path / "out.csv")["prediction"].tolist() == clf.predict(X[:3]).tolist()


def test_probabilities_of_a_model_without_them_are_refused_early(capsys, tmp_path):
    X, _ = blobs()
    reg = NeuralNetRegressor(**LINEAR).fit(X, X[:, 0])
    reg.compile()
    export(reg, tmp_path)
    pd.DataFrame(X[:3]).to_csv(tmp_path / "rows.csv", index=False)
    flags = ("--server", tmp_path / "server.zip", "--quiet", "--proba")
    shown = fails(capsys, "predict", tmp_path / "rows.csv", tmp_path / "out.csv", *flags)
    assert "needs a classifier" in shown


@pytest.mark.parametrize("n_targets", [1, 2])
def test_predict_names_each_target(capsys, tmp_path, n_targets):
    X, _ = blobs()
    reg = NeuralNetRegressor(**LINEAR).fit(X, X[:, :n_targets].squeeze())
    reg.compile()
    export(reg, tmp_path)
    pd.DataFrame(X[:3]).to_csv(tmp_path / "rows.csv", index=False)
    flags = ("--server", tmp_path / "server.zip", "--quiet")
    run(capsys, "predict", tmp_path / "rows.csv", tmp_path / "out.csv", *flags)
    written = pd.read_csv(tmp_path / "out.csv")
    expected = ["prediction"] if n_targets == 1 else ["prediction_0", "prediction_1"]
    assert list(written.columns) == expected
    np.testing.assert_allclose(written.to_numpy().squeeze(), reg.predict(X[:3]))


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("rows.csv", "out.txt", r"must be a \.csv or \.parquet file"),
        ("rows.txt", "out.csv", r"must be a \.csv or \.parquet file"),
        ("none.csv", "out.csv", "No such file"),
        ("lacking.csv", "out.csv", r"It lacks \['age'\]"),
        ("holes.csv", "out.csv", "NaN"),
        ("rows.csv", "none/out.csv", "directory of the predictions must exist"),
    ],
)
def test_tables_that_do_not_fit_are_refused(capsys, tmp_path, named, table, source, target, reason):
    _, directory = named
    X, _ = table
    X.to_csv(tmp_path / "rows.csv", index=False)
    X.drop(columns="age").to_csv(tmp_path / "lacking.csv", index=False)
    X.assign(age=np.nan).to_csv(tmp_path / "holes.csv", index=False)
    flags = ("--server", directory / "server.zip", "--quiet")
    shown = fails(capsys, "predict", tmp_path / source, tmp_path / target, *flags)
    assert re.search(reason, shown)
    assert not (tmp_path / target).exists()


def test_a_table_without_names_must_have_all_features(capsys, tmp_path, linear_artefacts):
    pd.DataFrame(np.zeros((2, 3))).to_csv(tmp_path / "rows.csv", index=False)
    flags = ("--server", linear_artefacts / "server.zip", "--quiet")
    shown = fails(capsys, "predict", tmp_path / "rows.csv", tmp_path / "out.csv", *flags)
    assert "4 features without names" in shown


def test_an_empty_token_does_not_open_the_service(capsys, tmp_path, linear_artefacts, monkeypatch):
    monkeypatch.setenv("CIPHERLEARN_TOKEN", "")
    server = linear_artefacts / "server.zip"
    shown = fails(capsys, "serve", server, "--data-dir", tmp_path / "keys")
    assert "token must not be empty" in shown


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--tls-key", "x"), "needs both"),
        (("--workers", "0"), "n_workers must be"),
        (("--max-body-bytes", "1"), "max_body_bytes must hold"),
        (("--token-file", "none"), "No such file"),
    ],
)
def test_a_service_that_cannot_work_does_not_start(
    capsys, tmp_path, linear_artefacts, flags, reason
):
    server = linear_artefacts / "server.zip"
    shown = fails(capsys, "serve", server, "--data-dir", tmp_path / "keys", *flags)
    assert reason in shown


def halve(X):
    return X / 2


def test_untrusted_types_are_asked_for_as_a_flag_before_compiling(
    capsys, tmp_path, table, monkeypatch
):
    pipe = make_pipeline(FunctionTransformer(halve), NeuralNetClassifier(**LINEAR)).fit(*table)
    joblib.dump(pipe, tmp_path / "model.joblib")

    def never(self, **options):
        raise AssertionError("compiled")

    with monkeypatch.context() as patched:
        patched.setattr(NeuralNetClassifier, "compile", never)
        shown = fails(capsys, "export", tmp_path / "model.joblib", tmp_path)
    assert "give --trusted test_cli.halve, or leave the step out" in shown
    flags = ("--trusted", "test_cli.halve")
    assert "client.zip" in run(capsys, "export", tmp_path / "model.joblib", tmp_path, *flags)
