"""Client and server in one process predict what the model predicts, and import little."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
import torch
from cases import LINEAR, TINY, blobs

from cipherlearn import NeuralNetClassifier, NeuralNetRegressor
from cipherlearn.deployment import FHEClient, FHEServer, export


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


def test_outputs_that_are_probabilities_stay_as_they_are(tmp_path, labelled_rows):
    X, y = labelled_rows
    clf = NeuralNetClassifier(**LINEAR, criterion=torch.nn.MultiMarginLoss).fit(X, y)
    clf.compile()
    export(clf, tmp_path)
    client, server = client_and_server(tmp_path)
    np.testing.assert_array_equal(
        client.predict_proba(X[:3], server.evaluate), clf.predict_proba(X[:3])
    )


# ---------------------------------------------------------------------- imports


BLOCKED = """
    import sys
    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in {blocked}:
                raise ModuleNotFoundError(f"{{name}} is blocked")
    sys.meta_path.insert(0, Blocker())
"""
TRAINING = {"torch", "skorch", "brevitas", "sklearn", "pandas", "matplotlib"}


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


def test_a_client_needs_no_scipy(linear_artefacts):
    code = f"""
    from cipherlearn.deployment import FHEClient
    client = FHEClient({str(linear_artefacts / "client.zip")!r})
    client.generate_keys()
    print(len(list(client.encrypt([[0.0] * 4]))))
    """
    script = textwrap.dedent(BLOCKED).format(blocked={*TRAINING, "scipy"}) + textwrap.dedent(code)
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert result.stdout == "1\n", result.stderr


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
