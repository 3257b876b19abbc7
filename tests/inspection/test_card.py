"""The model card tells the truth about a model, and its code runs."""

# What it imports is in no environment of the other engine.
# engine: concrete-python

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
import yaml
from cases import TINY, blobs
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skops.card import Card
from torch.utils.data import TensorDataset

from cipherlearn import NeuralNetClassifier, NeuralNetRegressor
from cipherlearn._words import of_trained
from cipherlearn.engines import engine_name
from cipherlearn.engines._options import DEFAULT_P_ERROR

LINEAR = {**TINY, "module__n_layers": 1, "module__n_accum_bits": 8}


def cells(text: str) -> dict[str, list[str]]:
    """The rows of all tables, by their first cell."""
    lines = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines}


@pytest.fixture(scope="module")
def compiled():
    X, y = blobs(3)
    clf = NeuralNetClassifier(**TINY).fit(X, np.array(["ant", "bee", "cow"])[y])
    clf.compile(p_error=1e-6)
    return clf


@pytest.fixture(scope="module")
def held_out():
    X, y = blobs(3, 90)
    return X[60:], np.array(["ant", "bee", "cow"])[y[60:]]


@pytest.fixture(scope="module")
def rendered(compiled, held_out):
    return compiled.card(*held_out).render()


def test_it_is_a_card_of_skops_that_can_be_changed(compiled):
    card = compiled.card()
    assert isinstance(card, Card)
    card.add(**{"Intended use and limits": "For ants only."})
    assert "For ants only." in card.render()


def test_the_saved_file_has_metadata_for_the_hub(tmp_path, compiled):
    card = compiled.card()
    card.front_matter |= {"license": "mit", "language": ["en"]}
    path = tmp_path / "README.md"
    card.save(path)
    assert path.read_text(encoding="utf-8") == card.render()
    _, metadata, body = card.render().split("---\n", maxsplit=2)
    assert yaml.safe_load(metadata) == {
        "library_name": "cipherlearn",
        "pipeline_tag": "tabular-classification",
        "tags": [
            "cipherlearn",
            "scikit-learn",
            "fully-homomorphic-encryption",
            "tabular-classification",
        ],
        "license": "mit",
        "language": ["en"],
    }
    assert re.findall(r"^#+ .*", body, flags=re.MULTILINE) == [
        "# Model description",
        "## How to use",
        "## Hyperparameters",
        "## Architecture",
        "# Cost of an encrypted prediction",
        "# Security",
        "# Intended use and limits",
        "# Licence",
    ]


def test_the_hub_reads_the_metadata(compiled):
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard(compiled.card().render()).data
    assert data.pipeline_tag == "tabular-classification"
    assert data.library_name == "cipherlearn"


def test_every_number_is_the_models(compiled, held_out, rendered):
    X, y = held_out
    table, report = cells(rendered), compiled.report(X)
    for layer in report.layers:
        assert table[layer.name] == [
            of_trained(layer.n_neurons, layer.n_trained),
            *(str(layer.n_weights), str(layer.budget)),
            *(str(layer.proven_bits), str(layer.table_bits or ""), str(layer.n_bootstraps)),
        ]
    assert table["Rows"] == [str(len(X))]
    assert table["Accuracy"] == [f"{compiled.score(X, y):.4f}"]
    assert table["Simulated outputs equal the clear ones"] == [f"{len(X)} of {len(X)} rows"]
    cost = report.cost
    assert table["Table lookups a row, a bootstrap each"] == [str(compiled.program_.n_bootstraps)]
    assert float(table["Seconds a row"][0]) == pytest.approx(cost.seconds_per_row, rel=0.01)
    assert table["Evaluation keys, bytes"] == [str(cost.key_bytes)]
    assert table["Encrypted batch, bytes"] == [str(cost.input_bytes)]
    assert table["Encrypted result, bytes"] == [str(cost.output_bytes)]
    p_error = float(table["Error probability of a bootstrap"][0])
    assert p_error == pytest.approx(compiled.circuit_.p_error, rel=0.1)
    assert p_error <= 0.001
    assert table["Engine"][0].startswith(engine_name())
    for name, value in TINY.items():
        assert table[f"`{name}`"] == [f"`{value!r}`"]


def test_it_names_machine_versions_and_what_is_not_protected(rendered):
    for text in (
        "concrete-python 2",
        "torch ",
        "scikit-learn ",
        "Python 3",
        "cores",
        "`p_error=1e-06`",
    ):
        assert text in rendered
    assert "The wide path is a linear sum" in rendered
    for text in ("IND-CPA-D", "must not go back", "malleable", "patent", "security audit"):
        assert text in rendered


def test_simulated_rows_that_differ_are_counted(compiled, held_out, monkeypatch):
    simulate = compiled.circuit_.simulate

    def wrong_once(codes):
        result = simulate(codes)
        result[0] += 1
        return result

    monkeypatch.setattr(compiled.circuit_, "simulate", wrong_once)
    n_rows = len(held_out[0])
    table = cells(compiled.card(*held_out).render())
    assert table["Simulated outputs equal the clear ones"] == [f"{n_rows - 1} of {n_rows} rows"]


def code_of(card: Card) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", card.render(), flags=re.DOTALL)
    return code


@pytest.mark.parametrize("is_compiled", [True, False])
def test_the_code_to_get_started_runs(tmp_path, monkeypatch, capsys, is_compiled):
    X, y = blobs(3)
    clf = NeuralNetClassifier(**LINEAR).fit(X, y)
    if is_compiled:
        clf.compile()
    skops.io.dump(clf, tmp_path / "model.skops")
    monkeypatch.chdir(tmp_path)
    exec(compile(code_of(clf.card()), "README.md", "exec"), {})
    clear, encrypted = capsys.readouterr().out.splitlines()
    assert clear == encrypted == str(clf.predict(np.zeros((1, 4))))


def test_the_code_names_the_columns_of_a_data_frame(tmp_path, monkeypatch, capsys):
    X, y = blobs(3)
    X = pd.DataFrame(X, columns=["a", "b|c", "it's", "d"])
    clf = NeuralNetClassifier(**LINEAR).fit(X, y)
    skops.io.dump(clf, tmp_path / "model.skops")
    monkeypatch.chdir(tmp_path)
    card = clf.card(X, y)
    assert "`b|c`" in card.render()
    exec(compile(code_of(card), "README.md", "exec"), {})
    clear, encrypted = capsys.readouterr().out.splitlines()
    assert clear == encrypted


@pytest.mark.parametrize("n_targets", [1, 2])
def test_a_regressor_is_scored_by_r2(n_targets):
    X, _ = blobs()
    y = X[:, :n_targets] if n_targets > 1 else X[:, 0]
    reg = NeuralNetRegressor(**LINEAR).fit(X, y)
    card = reg.card(X, y)
    assert cells(card.render())["R²"] == [f"{reg.score(X, y):.4f}"]
    assert f"{n_targets} target" in card.render()
    assert card.front_matter["pipeline_tag"] == "tabular-regression"


def test_what_is_not_compiled_is_described_with_the_defaults():
    X, y = blobs()
    text = NeuralNetClassifier(**LINEAR).fit(X, y).card(X, y).render()
    assert "Simulated" not in text
    assert "`compile()` has by default" in text
    # Of one layer there is nothing beside it.
    assert "wide path is" not in text
    assert f"{DEFAULT_P_ERROR:.1e}" in text
    assert cells(text)["Table lookups a row, a bootstrap each"] == ["0"]


def test_approximate_rounding_is_not_called_equal():
    X, y = blobs()
    rounded = {**TINY, "module__n_accum_bits": 5, "module__rounding_bits": 3}
    clf = NeuralNetClassifier(**rounded).fit(X, y)
    circuit = clf.compile(rounding="approximate")
    text = clf.card(X, y).render()
    assert "compute the same integers" not in text
    rate = cells(text)["Random rows whose result approximate rounding changes"]
    assert rate == [f"{100 * circuit.flip_rate:.1f} %"]


def test_the_network_of_a_pipeline_is_described_on_what_it_receives():
    X, y = blobs()
    pipe = make_pipeline(StandardScaler(), NeuralNetClassifier(**LINEAR)).fit(X, y)
    text = pipe[-1].card(pipe[:-1].transform(X), y).render()
    assert cells(text)["Accuracy"] == [f"{pipe.score(X, y):.4f}"]


def test_no_row_is_in_the_card():
    X, y = blobs()
    X = np.round(X, 6)
    held = TensorDataset(torch.as_tensor(X), torch.as_tensor(y))
    weight = np.array([0.123456, 0.654321, 0.314159])
    clf = NeuralNetClassifier(**LINEAR, criterion__weight=weight).fit(X, y)
    clf.set_params(callbacks=[("keeps", held)])
    text = clf.card(X, y).render()
    assert "TensorDataset" in text
    numbers = {float(number) for number in re.findall(r"-?\d+\.\d{3,}", text)}
    assert not numbers & {*X.ravel().tolist(), *weight.tolist()}


def test_rows_need_labels(compiled, held_out):
    with pytest.raises(ValueError, match=r"Got only X\. Give y too"):
        compiled.card(held_out[0])
    with pytest.raises(ValueError, match=r"Got only y\. Give X too"):
        compiled.card(y=held_out[1])


def test_the_metadata_survives_what_yaml_would_misread(compiled):
    card = compiled.card()
    odd = 'no: "yes" # \u2603\n---'
    card.front_matter["model_name"] = odd
    _, metadata, _ = re.split("^---\n", card.render(), maxsplit=2, flags=re.MULTILINE)
    assert yaml.safe_load(metadata)["model_name"] == odd
    assert json.dumps(odd) in metadata


def test_without_skops_the_error_says_what_to_install():
    code = """
    import sys
    sys.modules["skops"] = None
    from cipherlearn import NeuralNetClassifier
    clf = NeuralNetClassifier(module__n_layers=1, max_epochs=2).fit([[0.0], [1.0]], [0, 1])
    try:
        clf.card()
    except ImportError as error:
        print(error)
    """
    result = subprocess.run(
        [sys.executable, "-c", "\n".join(line[4:] for line in code.splitlines())],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pip install 'cipherlearn[card]'" in result.stdout
