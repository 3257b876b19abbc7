"""What the server's image installs: enough, pinned, and listed."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cipherlearn.cli import _parser

DOCKER = Path(__file__).parents[2] / "docker"

# A service and a worker where nothing is installed but some distributions.
PROGRAM = """
import sys
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

server_zip, directory, *pins = sys.argv[1:]
found = {
    module: {name.lower().replace("_", "-") for name in names}
    for module, names in packages_distributions().items()
}

# setuptools brings copies of some.
copies = Path(find_spec("setuptools").origin).with_name("_vendor")
vendored = {path.name for path in copies.iterdir()}

class Hide:
    def find_spec(self, name, path=None, target=None):
        names = found.get(name.partition(".")[0])
        if names and not names & {*pins, "cipherlearn"} and name.partition(".")[0] not in vendored:
            raise ModuleNotFoundError(f"{name} is hidden", name=name)

sys.meta_path.insert(0, Hide())
from cipherlearn.deployment._server import FHEServer
from cipherlearn.deployment.service import ServiceSettings, _http_server, _worker, create_app
import platformdirs

create_app(ServiceSettings(Path(server_zip), Path(directory)))
print(FHEServer(server_zip).runtime)
"""


@pytest.fixture(scope="module")
def pins():
    """Release of each distribution."""
    text = (DOCKER / "constraints.txt").read_text()
    pins = re.findall(r"^([\w.-]+)==(\S+) \\$", text, re.MULTILINE)
    assert len(pins) > 10
    return {canonicalize_name(name): version for name, version in pins}


def test_each_pin_has_checksums():
    text = (DOCKER / "constraints.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith(" "):
            assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line)
        else:
            assert re.fullmatch(r"[\w.-]+==\S+ \\", line)
            assert after.startswith("    --hash=")


def test_the_pins_are_within_the_ranges(pins):
    needed = [
        Requirement(line)
        for line in (DOCKER / "requirements.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    in_the_image = {each.name for each in needed} | {"concrete-python"}
    needed += [
        requirement
        for requirement in map(Requirement, requires("cipherlearn"))
        if requirement.marker is None or requirement.marker.evaluate({"extra": "server"})
        if requirement.name in in_the_image
    ]
    assert len(needed) > len(in_the_image)
    for requirement in needed:
        found = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(found), (requirement, found)


def run_with(distributions, server_zip, directory):
    command = [sys.executable, "-c", PROGRAM, str(server_zip), str(directory), *distributions]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_server_needs_no_more_than_the_pins(pins, linear_artefacts, tmp_path):
    server_zip = linear_artefacts / "server.zip"
    result = run_with(pins, server_zip, tmp_path / "keys")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "kernels\n"
    missing = run_with(pins.keys() - {"fastapi"}, server_zip, tmp_path / "keys")
    assert "fastapi is hidden" in missing.stderr


def test_the_bill_of_materials_lists_the_pins(pins):
    bill = json.loads((DOCKER / "sbom.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    listed = {canonicalize_name(each["name"]): each["version"] for each in bill["components"]}
    assert listed == pins
    assert [each["name"] for each in bill["components"] if not each.get("licenses")] == []


def test_the_composition_has_flags_that_the_command_takes(tmp_path):
    entry = re.search(r"^ENTRYPOINT (.*)$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    program, *arguments = [*json.loads(entry[1]), *services["server"]["command"]]
    assert program == "cipherlearn"
    options = _parser().parse_args(arguments)
    assert options.host == "127.0.0.1"
    # As the proxy has it.
    (host,) = options.allowed_host
    assert f"server_name {host};" in (DOCKER / "nginx.conf").read_text()
    assert options.proxy == ["127.0.0.1"]


def test_folders_in_memory_have_a_size():
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    folders = [folder for service in services.values() for folder in service["tmpfs"]]
    assert len(folders) == 3
    for folder in folders:
        assert re.search(r":(\w+,)*size=\d+[mg]$", folder), folder
