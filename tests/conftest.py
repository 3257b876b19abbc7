"""Models and artefacts that several test files share. Making them takes seconds."""

from __future__ import annotations

import pytest
from cases import LINEAR, TINY, classes
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cipherlearn import NeuralNetClassifier


def _exported(tmp_path_factory, model, name):
    from cipherlearn.deployment import export  # needs an engine

    directory = tmp_path_factory.mktemp(name)
    export(model, directory, n_test_rows=1)
    return directory


@pytest.fixture(scope="session")
def labelled_rows():
    return classes()


@pytest.fixture(scope="session")
def deployed_pipeline(labelled_rows):
    """A compiled pipeline whose network has bootstraps."""
    pipe = make_pipeline(StandardScaler(), NeuralNetClassifier(**TINY)).fit(*labelled_rows)
    pipe[-1].compile()
    return pipe


@pytest.fixture(scope="session")
def artefacts(tmp_path_factory, deployed_pipeline):
    """The directory of its client.zip and server.zip."""
    return _exported(tmp_path_factory, deployed_pipeline, "artefacts")


@pytest.fixture(scope="session")
def deployed_linear(labelled_rows):
    """A compiled one-layer model, which predicts in milliseconds and needs no evaluation keys."""
    clf = NeuralNetClassifier(**LINEAR).fit(*labelled_rows)
    clf.compile(batch_size=2)
    return clf


@pytest.fixture(scope="session")
def linear_artefacts(tmp_path_factory, deployed_linear):
    return _exported(tmp_path_factory, deployed_linear, "linear")


def _with_keys(directory):
    from cipherlearn.deployment import FHEClient  # needs an engine

    client = FHEClient(directory / "client.zip")
    client.generate_keys()
    return client


@pytest.fixture(scope="session")
def client(artefacts):
    """A client with keys. Tests that share it must not change it."""
    return _with_keys(artefacts)


@pytest.fixture(scope="session")
def linear_client(linear_artefacts):
    return _with_keys(linear_artefacts)
