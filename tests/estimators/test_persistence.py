"""Estimators that are saved, and loaded in a process that has never seen them."""

# What it imports is in no environment of the other engine.
# engine: concrete-python

from __future__ import annotations

import subprocess
import sys
import zipfile

import joblib
import numpy as np
import pytest
import skops.io
from cases import TINY, blobs
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cipherlearn import NeuralNetClassifier, NeuralNetRegressor

TYPES = {
    "cipherlearn.estimators._classifier.NeuralNetClassifier",
    "cipherlearn.nn._network.SparseQuantNeuralNetImpl",
    "torch.nn.modules.activation.ReLU",
    "torch.optim.adam.Adam",
    "torch.utils.data.dataloader.DataLoader",
}

LOAD = {
    "joblib": "import joblib; model = joblib.load(path)",
    "skops": "import skops.io; model = skops.io.load(path, trusted=sorted({types}))",
}
PREDICT = """
import sys
import numpy as np
path, rows, encrypted, clear = sys.argv[1:]
{load}
X = np.load(rows)
np.save(clear, model.predict(X))
np.save(encrypted, model.predict(X[:3], execute_in_fhe=True))
"""


@pytest.fixture(scope="module")
def pipeline():
    X, y = blobs()
    pipe = make_pipeline(StandardScaler(), NeuralNetClassifier(**TINY)).fit(X, y)
    pipe[-1].compile(p_error=1e-6)
    return pipe, X


@pytest.mark.parametrize("how", ["joblib", "skops"])
def test_a_compiled_pipeline_predicts_encrypted_in_another_process(tmp_path, pipeline, how):
    pipe, X = pipeline
    path = tmp_path / f"model.{how}"
    {"joblib": joblib.dump, "skops": skops.io.dump}[how](pipe, path)
    np.save(tmp_path / "rows.npy", X)
    script = PREDICT.format(load=LOAD[how].format(types=TYPES))
    names = [str(tmp_path / name) for name in ("rows.npy", "encrypted.npy", "clear.npy")]
    result = subprocess.run(
        [sys.executable, "-c", script, str(path), *names],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "clear.npy"), pipe.predict(X))
    np.testing.assert_array_equal(np.load(tmp_path / "encrypted.npy"), pipe.predict(X[:3]))


def reloaded(estimator):
    content = skops.io.dumps(estimator)
    return skops.io.loads(content, trusted=skops.io.get_untrusted_types(data=content))


def test_a_skops_file_names_all_its_types_and_holds_no_pickle(tmp_path, pipeline):
    pipe, _ = pipeline
    path = tmp_path / "model.skops"
    skops.io.dump(pipe, path)
    assert set(skops.io.get_untrusted_types(file=path)) == TYPES
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            # A pickle of protocol 2 and later, and torch's own files.
            assert not content.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"))
            assert b"torch._utils" not in content


def test_what_was_set_after_fit_survives_and_training_goes_on(pipeline):
    X, y = blobs()
    clf = NeuralNetClassifier(**TINY).fit(X, y)
    clf.compile(batch_size=2)
    clf.set_params(module__n_hidden_neurons=7, lr=0.001)
    again = reloaded(clf)
    assert again.get_params(deep=False) == clf.get_params(deep=False)
    assert again.circuit_.arguments == clf.circuit_.arguments
    assert again.history_ == clf.history_
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    n_epochs = len(again.history_)
    again.partial_fit(X, y)
    assert len(again.history_) == n_epochs + TINY["max_epochs"]
    assert again.score(X, y) > 0.8


def test_an_unfitted_estimator_survives():
    again = reloaded(NeuralNetRegressor(**TINY))
    assert again.get_params(deep=False) == NeuralNetRegressor(**TINY).get_params(deep=False)
    X, _ = blobs()
    assert again.fit(X, X[:, 0]).score(X, X[:, 0]) > 0


def test_loading_leaves_the_global_generator_alone(pipeline):
    import torch

    pipe, _ = pipeline
    content = skops.io.dumps(pipe)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    skops.io.loads(content, trusted=sorted(TYPES))
    assert torch.equal(torch.rand(3), expected)
