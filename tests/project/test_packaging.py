"""The metadata, what each extra promises, and how fast the package imports."""

# What it imports is in no environment of the other engine.
# engine: concrete-python

from __future__ import annotations

import importlib
import statistics
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

METADATA = distribution("cipherlearn").metadata

# What each extra is for: these import once it is installed.
PROMISES = {
    "card": ["cipherlearn.inspection._card"],
    "client": [
        "cipherlearn.deployment._remote",
        *("cryptography", "pandas", "pyarrow", "requests", "skops.io"),
    ],
    "dev": ["build", "mypy", "pre_commit", "twine"],
    "docs": [
        *("matplotlib.pyplot", "myst_parser", "numpydoc", "pandas", "pydata_sphinx_theme"),
        *("sphinx", "sphinx_copybutton", "sphinx_design", "sphinx_gallery.gen_gallery"),
    ],
    "plot": ["matplotlib.pyplot"],
    "server": [
        "cipherlearn.deployment.service._app",
        "fastapi",
        "platformdirs",
        "prometheus_client",
        "uvicorn",
    ],
    "test": [
        *("dask", "distributed", "hypothesis", "ipykernel", "jupytext", "nbclient", "packaging"),
        *("pandas", "polars", "pytest", "schemathesis", "xdist", "yaml"),
    ],
}

# The tests do without these.
OPTIONAL = {"dev", "docs"}


def requirements(extra: str) -> list[Requirement]:
    """Return the requirements of an extra, including those of extras that it names."""
    found = []
    for text in METADATA.get_all("Requires-Dist"):
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            continue
        if not marker.evaluate({"extra": extra}):
            continue
        if requirement.name == "cipherlearn":
            found += [r for name in requirement.extras for r in requirements(name)]
        else:
            found.append(requirement)
    return found


def test_the_extras_are_those_with_a_promise():
    assert set(METADATA.get_all("Provides-Extra")) == PROMISES.keys()


@pytest.mark.parametrize("extra", PROMISES)
def test_an_extra_names_releases_that_keep_its_promise(extra):
    needed = requirements(extra)
    assert needed
    try:
        installed = {requirement: version(requirement.name) for requirement in needed}
    except PackageNotFoundError as error:
        if extra in OPTIONAL:
            pytest.skip(f"{error} is not installed here")
        raise
    for requirement, found in installed.items():
        assert requirement.specifier.contains(found, prereleases=True), (requirement, found)
    for name in PROMISES[extra]:
        importlib.import_module(name)


def test_the_metadata_names_licence_and_readme():
    assert METADATA["License-Expression"] == "BSD-3-Clause"
    assert METADATA.get_all("License-File") == ["LICENSE"]
    assert METADATA["Description-Content-Type"] == "text/markdown"
    assert METADATA["Requires-Python"] == "<3.13,>=3.10"
    assert METADATA["Version"] == importlib.import_module("cipherlearn").__version__


def test_types_are_announced():
    package = Path(importlib.import_module("cipherlearn").__file__).parent
    assert (package / "py.typed").exists()


IMPORT = """
import sys, time
start = time.perf_counter()
import cipherlearn
print(time.perf_counter() - start, *{"matplotlib", "pandas", "sklearn", "torch"} & set(sys.modules))
"""


@pytest.mark.alone
def test_importing_the_package_takes_less_than_0_3_seconds():
    seconds = []
    for _ in range(5):
        output = subprocess.check_output([sys.executable, "-c", IMPORT], text=True)
        time_taken, *heavy = output.split()
        assert not heavy
        seconds.append(float(time_taken))
    assert statistics.median(seconds) < 0.3
