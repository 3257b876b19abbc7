"""Install the built wheel outside the source tree, with core dependencies only, and use it.

Run by ``make package``, from the root of the repository, after the wheel and the source
distribution were built into ``dist`` and the wheel of the tree itself into ``build/tree``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]

# What a source distribution must hold besides the package, and neither may.
SOURCES = {
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "conftest.py",
    "pyproject.toml",
    "tests/cases.py",
}
REFUSED = re.compile(r"(^|/)(__pycache__|\.venv[^/]*|_build|generated)/|\.pyc$")


def only(pattern: str) -> Path:
    (path,) = ROOT.glob(pattern)
    return path


def contents(wheel: Path) -> dict[str, int]:
    """Checksums by name."""
    with zipfile.ZipFile(wheel) as archive:
        return {info.filename: info.CRC for info in archive.infolist()}


def check_archives(wheel: Path) -> None:
    in_tree, in_wheel = contents(only("build/tree/*.whl")), contents(wheel)
    assert in_wheel == in_tree, (
        "The wheel of the source distribution is not the one of the source tree: they differ in "
        f"{sorted(in_wheel.items() ^ in_tree.items())}."
    )
    package = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src/cipherlearn").rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    meta = {name for name in in_wheel if ".dist-info/" in name}
    assert in_wheel.keys() - meta == package, sorted((in_wheel.keys() - meta) ^ package)
    assert any(name.endswith("licenses/LICENSE") for name in meta), sorted(meta)
    with tarfile.open(only("dist/*.tar.gz")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= SOURCES, f"The source distribution lacks {sorted(SOURCES - names)}."
    refused = sorted(name for name in names if REFUSED.search(name))
    assert not refused, f"The source distribution holds {refused}."


def requirements(dist: Distribution, extras: set[str]) -> list[Requirement]:
    """Return the requirements of a distribution in this environment."""
    found = [Requirement(text) for text in dist.requires or ()]
    return [
        requirement
        for requirement in found
        if requirement.marker is None
        or any(requirement.marker.evaluate({"extra": extra}) for extra in extras | {""})
    ]


def core_dependencies(wheel: Path) -> list[Distribution]:
    """Find the dependencies of the wheel without extras, and theirs, as installed here."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        waiting = requirements(PathDistribution(zipfile.Path(archive, name).parent), set())
    found: dict[str, Distribution] = {}
    seen = set()
    while waiting:
        requirement = waiting.pop()
        key = (requirement.name, frozenset(requirement.extras))
        if key not in seen:
            seen.add(key)
            dist = distribution(requirement.name)
            found[dist.metadata["Name"]] = dist
            waiting += requirements(dist, set(requirement.extras))
    return list(found.values())


def link(dist: Distribution, site_packages: Path) -> None:
    """Let an environment have a distribution that is installed here, without a copy."""
    for top in {file.parts[0] for file in dist.files or ()} - {"..", "__pycache__"}:
        target = site_packages / top
        if not target.exists():
            target.symlink_to(Path(dist.locate_file(top)).resolve())


def main() -> None:
    wheel = only("dist/*.whl")
    check_archives(wheel)
    with tempfile.TemporaryDirectory() as directory:
        venv.create(directory, with_pip=False)
        scheme = {"base": directory, "platbase": directory}
        site_packages = Path(sysconfig.get_path("purelib", "venv", scheme))
        dependencies = core_dependencies(wheel)
        for dist in dependencies:
            link(dist, site_packages)
        python = Path(directory, "bin", "python")
        pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        install = [*pip, "install", "--quiet", "--no-deps", "--no-index", wheel]
        subprocess.run(install, env=env, check=True)
        subprocess.run([*pip, "check"], env=env, check=True)
        print(f"{wheel.name} beside {len(dependencies)} dependencies")
        # -I: the folder of the script lends it no modules.
        smoke = [python, "-I", ROOT / "tests/smoke.py"]
        subprocess.run(smoke, cwd=directory, env=env, check=True)


if __name__ == "__main__":
    main()
