"""A client of a service that lacks its keys."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import numpy as np
import pytest
from serving import Service

from cipherlearn.deployment import RemoteError, RemoteModel, UnknownKeyError


def test_missing_keys_are_uploaded_without_a_retry(
    tmp_path, linear_artefacts, deployed_linear, labelled_rows, monkeypatch
):
    X, _ = labelled_rows
    with Service(linear_artefacts / "server.zip", tmp_path / "keys") as service:
        remote = RemoteModel(service.url, n_retries=0)
        np.testing.assert_array_equal(remote.predict(X[:3]), deployed_linear.predict(X[:3]))
        # One that forgets them at once is not asked for ever.
        n_uploads = 0

        def forget(method, path, body=None):
            raise UnknownKeyError("The server has not these keys.")

        def upload():
            nonlocal n_uploads
            n_uploads += 1

        monkeypatch.setattr(remote._connection, "request", forget)
        monkeypatch.setattr(remote, "upload_keys", upload)
        with pytest.raises(RemoteError, match=r"in 1 tries.*has not these keys"):
            remote.predict(X[:3])
        assert n_uploads == 1
