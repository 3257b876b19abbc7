"""A service answers as its OpenAPI document says, whatever is made of that document."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from serving import Service, needs_proc

pytestmark = needs_proc

TESTS = Path(__file__).parents[1]


def test_schemathesis_finds_nothing(tmp_path, linear_artefacts, linear_client, labelled_rows):
    (ciphertext,) = linear_client.encrypt(labelled_rows[0][:2])
    (tmp_path / "ciphertext").write_bytes(ciphertext)
    (tmp_path / "keys").write_bytes(linear_client.evaluation_keys())
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
        "SCHEMATHESIS_HOOKS": "schema_hooks",
        "SCHEMA_BODIES": str(tmp_path),
    }
    with Service(linear_artefacts / "server.zip", tmp_path / "store", token="a token") as service:
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/openapi.json"]
        command += ["--header", "Authorization: Bearer a token", "--seed", "0"]
        command += ["--max-examples", "20", "--generation-database", "none"]
        result = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert result.returncode == 0, result.stdout
    assert "Tested: 8" in result.stdout
