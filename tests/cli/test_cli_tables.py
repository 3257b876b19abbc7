"""The tables that the command line reads and writes, and what it says of those that do not fit."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import io
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from cases import TINY
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from cipherlearn import NeuralNetClassifier
from cipherlearn.cli import main
from cipherlearn.deployment import FHEClient, export


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.integers(18, 80, 40), "sort": rng.choice(["x", "y"], 40)})
    frame.insert(0, "key", [f"{i:03}" for i in range(40)])
    frame["note, or remark"] = "a; b"
    return frame


@pytest.fixture(scope="module")
def deployed(rows, tmp_path_factory):
    """A model of two columns, of which one holds categories."""
    steps = make_column_transformer(
        (SimpleImputer(), ["age"]), (OneHotEncoder(sparse_output=False), ["sort"])
    )
    net = NeuralNetClassifier(**{**TINY, "module__n_layers": 1, "module__n_accum_bits": 8})
    y = np.where(rows["age"] > 50, "old", "young")
    model = make_pipeline(steps, net).fit(rows[["age", "sort"]], y)
    net.compile(batch_size=8)
    directory = tmp_path_factory.mktemp("columns")
    export(model, directory, n_test_rows=1)
    return model, directory / "server.zip"


def predict(capsys, server, source, target, *flags):
    main(["predict", str(source), str(target), "--server", str(server), "--quiet", *flags])
    return capsys.readouterr()


def refused(capsys, server, source, target="-", *flags):
    with pytest.raises(SystemExit) as error:
        predict(capsys, server, source, target, *flags)
    shown = capsys.readouterr()
    assert shown.out == ""
    reason = f"{error.value.code}"
    assert "\n" not in reason
    assert reason.startswith("cipherlearn: error: ")
    return reason


def test_columns_of_ids_are_carried_through_as_they_stand(capsys, tmp_path, rows, deployed):
    model, server = deployed
    rows.to_csv(tmp_path / "rows.csv", index=False)
    flags = ("--id", "key", "--id", "note, or remark", "--proba")
    shown = predict(capsys, server, tmp_path / "rows.csv", tmp_path / "out.csv", *flags)
    assert "40 predictions" in shown.err
    written = pd.read_csv(tmp_path / "out.csv", dtype={"key": str})
    names = ["key", "note, or remark", "prediction", "probability_old", "probability_young"]
    assert list(written.columns) == names
    assert written["key"].tolist() == rows["key"].tolist()
    X = rows[["age", "sort"]]
    assert written["prediction"].tolist() == model.predict(X).tolist()
    np.testing.assert_allclose(written[names[3:]], model.predict_proba(X))


def test_an_id_may_be_a_feature_too_and_not_a_prediction(capsys, tmp_path, rows, deployed):
    _, server = deployed
    rows.rename(columns={"key": "prediction"}).to_csv(tmp_path / "rows.csv", index=False)
    shown = predict(capsys, server, tmp_path / "rows.csv", "-", "--id", "age")
    assert pd.read_csv(io.StringIO(shown.out))["age"].tolist() == rows["age"].tolist()
    reason = refused(capsys, server, tmp_path / "rows.csv", "-", "--id", "prediction")
    assert "--id names columns ['prediction'], as predictions are named" in reason


def test_a_clash_of_names_is_found_before_rows_are_encrypted(
    capsys, tmp_path, rows, deployed, monkeypatch
):
    monkeypatch.setattr(FHEClient, "outputs", None)
    rows.rename(columns={"key": "probability_old"}).to_csv(tmp_path / "rows.csv", index=False)
    flags = ("--id", "probability_old", "--proba")
    assert "as predictions are named" in refused(
        capsys, deployed[1], tmp_path / "rows.csv", "-", *flags
    )


@pytest.fixture(scope="module")
def messy(tmp_path_factory):
    """A model whose training data had text in all columns but one, and missing values."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "code": rng.choice(["10", "20", "A1"], 60),
            "country": rng.choice(["Chad", "Peru"], 60),
            "age": rng.integers(18, 80, 60).astype(float),
        }
    )
    frame["country"] = frame["country"].where(rng.random(60) < 0.7)
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["code", "country"]), remainder=SimpleImputer()
    )
    net = NeuralNetClassifier(**{**TINY, "module__n_layers": 1, "module__n_accum_bits": 8})
    model = make_pipeline(columns, net).fit(frame, np.where(frame["age"] > 50, "old", "young"))
    net.compile()
    directory = tmp_path_factory.mktemp("messy")
    export(model, directory, n_test_rows=1)
    return model, frame, directory / "server.zip"


@pytest.mark.parametrize(
    "chosen",
    [
        lambda frame: frame[frame["country"].isna()][:1],
        lambda frame: frame[frame["code"] == "10"][:2],
        lambda frame: frame[:2].assign(age=np.nan),
    ],
    ids=["no country", "codes that are numbers", "no age"],
)
def test_whether_a_row_is_predicted_does_not_depend_on_its_neighbours(
    capsys, tmp_path, messy, chosen
):
    model, frame, server = messy
    rows = chosen(frame)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    shown = predict(capsys, server, tmp_path / "rows.csv", "-")
    written = pd.read_csv(io.StringIO(shown.out))["prediction"]
    assert written.tolist() == model.predict(rows).tolist()


def test_texts_that_are_read_as_missing_values_are_named(capsys, tmp_path, messy):
    model, frame, server = messy
    rows = frame[frame["country"].notna()][:3]
    lines = rows.assign(country=["None", "Peru", "NA"]).assign(note="NULL")
    lines.to_csv(tmp_path / "rows.csv", index=False)
    shown = predict(capsys, server, tmp_path / "rows.csv", tmp_path / "out.csv")
    assert "Read as missing values: 'NA', 'None' in column 'country'. If" in shown.err
    expected = model.predict(rows.assign(country=[None, "Peru", None])).tolist()
    assert pd.read_csv(tmp_path / "out.csv")["prediction"].tolist() == expected
    # Empty fields are missing, and a file of Parquet says which are.
    for name in ("rows.csv", "rows.parquet"):
        table = lines if name == "rows.parquet" else rows.assign(country=[None, "Peru", ""])
        getattr(table, f"to_{name[5:]}")(tmp_path / name, index=False)
        assert "missing" not in predict(capsys, server, tmp_path / name, "-").err


def test_a_wrong_value_beside_a_missing_category_is_named(capsys, tmp_path, messy):
    _, frame, server = messy
    rows = frame[:2].astype({"age": object})
    rows.iloc[1] = ["A1", None, "lots"]
    rows.to_csv(tmp_path / "rows.csv", index=False)
    reason = refused(capsys, server, tmp_path / "rows.csv")
    assert "Row 2, column 'age': expected a number. Got 'lots'" in reason


def test_old_line_ends_are_read_and_an_open_quote_is_refused(capsys, tmp_path, rows, deployed):
    model, server = deployed
    text = rows[:3].to_csv(index=False)
    (tmp_path / "rows.csv").write_bytes(text.replace("\n", "\r").encode())
    shown = predict(capsys, server, tmp_path / "rows.csv", "-")
    expected = model.predict(rows[:3][["age", "sort"]]).tolist()
    assert pd.read_csv(io.StringIO(shown.out))["prediction"].tolist() == expected
    (tmp_path / "rows.csv").write_text(text + '"' + 200_000 * "x")
    assert "A table must be CSV" in refused(capsys, server, tmp_path / "rows.csv")


def test_the_separator_of_predictions_of_parquet_rows_may_be_named(
    capsys, tmp_path, rows, deployed
):
    rows.to_parquet(tmp_path / "rows.parquet")
    flags = ("--separator", ";", "--id", "key")
    shown = predict(capsys, deployed[1], tmp_path / "rows.parquet", "-", *flags)
    assert shown.out.startswith("key;prediction\n")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("is_named", [False, True])
def test_the_separator_is_found_or_named(capsys, tmp_path, rows, deployed, separator, is_named):
    model, server = deployed
    # The comma in a name would be the separator without its quotes.
    text = rows.to_csv(index=False, sep=separator)
    (tmp_path / "rows.csv").write_text("\ufeff" + text, encoding="utf-8")
    flags = ("--separator", {"\t": "tab"}.get(separator, separator)) if is_named else ()
    shown = predict(capsys, server, tmp_path / "rows.csv", "-", "--id", "key", *flags)
    written = pd.read_csv(io.StringIO(shown.out), sep=separator)
    assert written["prediction"].tolist() == model.predict(rows[["age", "sort"]]).tolist()


def test_standard_streams_hold_the_table_and_nothing_else(rows, deployed):
    model, server = deployed
    command = [sys.executable, "-m", "cipherlearn", "predict", "-", "-", "--server", str(server)]
    result = subprocess.run(
        command,
        input=rows[:3].to_csv(index=False),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    written = pd.read_csv(io.StringIO(result.stdout))
    assert written["prediction"].tolist() == model.predict(rows[["age", "sort"]][:3]).tolist()
    assert "3 predictions" in result.stderr
    assert "does not use the columns ['key', 'note, or remark']" in result.stderr


@pytest.mark.parametrize(
    ("row", "column", "value", "reason"),
    [
        (0, "age", "old", r"Row 1, column 'age': expected a number\. Got 'old'"),
        (17, "age", "18,5", r"Row 18, column 'age': expected a number\. Got '18,5'"),
        (39, "sort", "z", r"Row 40, column 'sort': expected a value such as '[xy]'\. Got 'z'"),
        (5, "sort", None, r"Row 6, column 'sort': expected a value such as '[xy]'\. Got nothing"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(
    capsys, tmp_path, rows, deployed, row, column, value, reason
):
    rows = rows.astype({"age": object})
    rows.loc[row, column] = value
    rows.to_csv(tmp_path / "rows.csv", index=False)
    assert re.search(reason, refused(capsys, deployed[1], tmp_path / "rows.csv"))


@pytest.mark.parametrize("value", ["nan", "inf", "high"])
def test_a_wrong_value_of_a_column_without_name_is_named(capsys, tmp_path, linear_artefacts, value):
    lines = ["a,b,c,d", "1,2,3,4", f"1,2,{value},4", "1,2,3,4"]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    reason = refused(capsys, linear_artefacts / "server.zip", tmp_path / "rows.csv")
    assert "Row 2, column 'c': expected a number. Got " in reason


@pytest.mark.parametrize(
    ("text", "flags", "reason"),
    [
        ("", (), "is empty"),
        ("\n\n", (), "is empty"),
        ("age,sort\n", (), "has a header only"),
        ("age\n20\n", (), r"It lacks \['sort'\], and has \['age'\]"),
        ("age,sort,age\n20,x,30\n", (), r"has \['age'\] repeatedly"),
        ("age,sort\n20,x\n20,x,30\n", (), "Row 2 of .* has 3"),
        ("age,sort\n20\n", (), "Row 1 of .* has 1"),
        ("age;sort\n20;x\n", ("--separator", ","), r"It lacks \['age', 'sort'\]"),
        ("age,sort\n20,x\n", ("--id", "key"), r"--id must name columns of .* Got \['key'\]"),
        (b"age,sort\n20,\xff\n", (), "must be encoded as UTF-8"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    capsys, tmp_path, deployed, monkeypatch, text, flags, reason
):
    content = text.encode() if isinstance(text, str) else text
    (tmp_path / "rows.csv").write_bytes(content)
    assert re.search(reason, refused(capsys, deployed[1], tmp_path / "rows.csv", "-", *flags))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert re.search(reason, refused(capsys, deployed[1], "-", "-", *flags))


def test_files_that_cannot_be_read_are_named(capsys, tmp_path, deployed):
    _, server = deployed
    assert "No such file or directory: none/rows.csv" in refused(capsys, server, "none/rows.csv")
    (tmp_path / "folder.csv").mkdir()
    assert "Is a directory: " in refused(capsys, server, tmp_path / "folder.csv")
    (tmp_path / "rows.csv").write_text("age,sort\n20,x\n")
    reason = refused(capsys, server, tmp_path / "rows.csv", tmp_path / "folder.csv")
    assert "is a directory" in reason
    assert "No such file" in refused(capsys, tmp_path / "none.zip", tmp_path / "rows.csv")


@pytest.mark.parametrize("error", [KeyError("name"), IndexError(3), RuntimeError("damaged")])
def test_whatever_a_damaged_parquet_file_raises_gets_one_line(
    capsys, tmp_path, deployed, monkeypatch, error
):
    def read(source):
        raise error

    monkeypatch.setattr("pandas.read_parquet", read)
    reason = refused(capsys, deployed[1], tmp_path / "rows.parquet")
    assert re.search(r"A table must be whole\. .*rows\.parquet cannot be read", reason)


@pytest.mark.parametrize("separator", ["", "::", '"'])
def test_a_separator_must_be_a_character(capsys, separator):
    with pytest.raises(SystemExit):
        main(["predict", "-", "-", "--url", "http://localhost", "--separator", separator])
    assert "must be one character" in capsys.readouterr().err


def test_a_service_that_is_not_there_gets_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    (tmp_path / "rows.csv").write_text("age,sort\n20,x\n")
    with pytest.raises(SystemExit) as error:
        main(["predict", str(tmp_path / "rows.csv"), "-", "--url", "http://127.0.0.1:9"])
    assert error.value.code == (
        "cipherlearn: error: The service at http://127.0.0.1:9 did not answer in 6 tries. The last "
        "said: Connection refused"
    )
