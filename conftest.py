"""Settings of every test run."""

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import settings

from cipherlearn import EngineNotFoundError
from cipherlearn.engines import engine_name

# The same examples on every machine.
settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("fixed")

# Pages whose examples time circuits.
TIMED = {
    Path(__file__).parent / "docs" / page
    for page in ("how_to/make_it_faster.rst", "user_guide/latency.rst")
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Let nothing run beside what measures time, be it a page."""
    for item in items:
        if item.path in TIMED:
            item.add_marker("alone")


ENGINE = None
with contextlib.suppress(EngineNotFoundError):
    ENGINE = engine_name()


def pytest_ignore_collect(collection_path):
    """Leave out files and packages that name an engine other than the one that is installed.

    They do so in a line of their own, ``engine: concrete-python`` behind the mark of a comment.
    """
    path = collection_path / "__init__.py" if collection_path.is_dir() else collection_path
    if path.suffix not in (".py", ".rst") or not path.exists():
        return None
    named = re.search(r"^(?:#|\.\.) engine: (\S+)$", path.read_text("utf-8"), re.MULTILINE)
    return True if named and named[1] != ENGINE else None
