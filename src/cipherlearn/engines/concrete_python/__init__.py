"""The concrete-python engine: its compiler, a client's side and a server's side."""

# It excludes Concrete-Numpy.
# engine: concrete-python

from __future__ import annotations

from importlib.metadata import version

__all__ = ["ENGINE", "engine_version"]

ENGINE = "concrete-python"


def engine_version() -> str:
    """Return the version of the installed engine."""
    return version(ENGINE)
