"""The check of the built documentation's links."""

# The same with any engine.
# engine: concrete-python

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "check_links.py"
PAGE = """<h1 id="here">Here</h1><a href="#here">itself</a>
<a href="folder/other.html?v=1#there">other</a><a href="https://example.org/gone">elsewhere</a>
<img src="picture.svg" srcset="picture.svg, picture.svg 2x">"""


def check(root):
    command = [sys.executable, SCRIPT, root]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def site(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "other.html").write_text("<h1 id='there'></h1><a href='../index.html'>")
    (tmp_path / "picture.svg").touch()
    (tmp_path / "index.html").write_text(PAGE)
    return tmp_path


def test_a_site_whose_links_resolve_passes(site):
    result = check(site)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("folder/other.html?v=1#there", "folder/missing.html"),
        ("folder/other.html?v=1#there", "folder/other.html#missing"),
        ("#here", "#missing"),
        ('src="picture.svg"', 'src="missing.svg"'),
        ("picture.svg 2x", "missing.svg 2x"),
        ("#here", "../outside.html"),
    ],
)
def test_what_does_not_resolve_fails_and_is_named(site, good, bad):
    assert good in PAGE
    (site / "index.html").write_text(PAGE.replace(good, bad))
    result = check(site)
    assert result.returncode == 1
    address = bad.removeprefix('src="').rstrip('"').split()[0]
    if address.startswith("#"):
        assert f"index.html: {address} does not resolve" in result.stderr
    assert address in result.stderr


def test_a_folder_without_pages_is_an_error(tmp_path):
    result = check(tmp_path)
    assert result.returncode == 1
    assert "make docs" in result.stderr
