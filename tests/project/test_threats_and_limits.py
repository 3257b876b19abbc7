"""The page on threats, limits and faults says what is so."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from cipherlearn.cli import _parser
from cipherlearn.deployment.service import ServiceSettings
from cipherlearn.deployment.service._connections import ConnectionLimits

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "user_guide" / "threats_and_limits.rst").read_text()


def test_every_limit_is_there_with_its_default():
    section = PAGE.split("\nLimits of a service\n")[1].split("\nWhat a fault does\n")[0]
    listed = dict(re.findall(r"^   \* - ``--([\w-]+)``\n     - (\d+)$", section, re.MULTILINE))
    options = vars(_parser().parse_args(["serve", "server.zip"]))
    limits = {key: value for key, value in options.items() if type(value) is int and key != "port"}
    assert {key.replace("-", "_"): int(value) for key, value in listed.items()} == limits
    # Those of the classes are the same.
    defaults = {
        each.name.removeprefix("n_"): each.default
        for kind in (ServiceSettings, ConnectionLimits)
        for each in fields(kind)
        if each.type == "int"
    }
    assert defaults.items() <= limits.items()


FAULTS = PAGE.split("\nWhat a fault does\n")[1]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"``(tests/\S+)``", FAULTS))))
def test_a_fault_is_shown_by_a_test(name):
    path, _, function = name.partition("::")
    assert f"\ndef {function}(" in (ROOT / path).read_text()


def test_every_fault_has_a_test():
    rows = FAULTS.split("\n   * - ")[2:]
    assert len(rows) > 20
    for row in rows:
        assert "``tests/" in row, row
