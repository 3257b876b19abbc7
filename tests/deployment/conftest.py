"""Services and servers that the tests of deployment share."""

from __future__ import annotations

import pytest

from cipherlearn.deployment import FHEServer


def _served(directory, tmp_path_factory):
    from serving import Service  # no environment of the other engine has what it imports

    return Service(directory / "server.zip", tmp_path_factory.mktemp("service") / "keys")


@pytest.fixture(scope="session")
def service(artefacts, tmp_path_factory):
    with _served(artefacts, tmp_path_factory) as service:
        yield service


@pytest.fixture(scope="session")
def linear_service(linear_artefacts, tmp_path_factory):
    with _served(linear_artefacts, tmp_path_factory) as service:
        yield service


@pytest.fixture(scope="session")
def server(artefacts, client):
    server = FHEServer(artefacts / "server.zip")
    server.add_keys(client.evaluation_keys())
    return server


@pytest.fixture(scope="session")
def linear_server(linear_artefacts, linear_client):
    server = FHEServer(linear_artefacts / "server.zip")
    server.add_keys(linear_client.evaluation_keys())
    return server
