"""Whatever bytes a stranger sends, only cipherlearn's exceptions leave loaders and clients."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import pytest
from hunt import FORMATS, hunt, write_originals


@pytest.fixture(scope="module")
def originals(tmp_path_factory, linear_artefacts, artefacts):
    directory = tmp_path_factory.mktemp("originals")
    write_originals(directory, linear_artefacts, artefacts)
    return directory


@pytest.mark.parametrize("name", FORMATS)
def test_mutants_are_read_or_refused(originals, name):
    report = hunt(originals, name, 300)
    assert not report.harm, "\n".join(report.harm)
    assert report.outcomes.total() == 300
    assert report.outcomes["refused"] > 100
    # Every answer to a prediction is a refusal, whatever it says.
    assert name == "error body" or report.outcomes["read"] > 5


SCRIPT = """
import os, sys, time
first, n_mutants = map(int, sys.argv[4:])
for number in range(first, first + n_mutants):
    if number == 2:
        os.abort()
    if number == 4:
        time.sleep(60)
    print('["raised", "Traceback", 9]' if number == 5 else '["read", "", 5]', flush=True)
"""


def test_a_mutant_that_ends_or_stops_its_process_is_named(tmp_path, monkeypatch):
    (tmp_path / "script.py").write_text(SCRIPT)
    monkeypatch.setattr("hunt.MAX_SECONDS", 2)
    report = hunt(tmp_path, "x", 7, script=str(tmp_path / "script.py"))
    assert report.n_bytes == 9
    assert report.outcomes == {"read": 4, "fatal": 2, "raised": 1}
    assert report.harm == [
        "x, seed 0, number 2: ends the process with -6",
        "x, seed 0, number 4: takes too long",
        "x, seed 0, number 5: Traceback",
    ]
