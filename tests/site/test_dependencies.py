"""What is installed is what constraints.txt says, and every dependency has its reason."""

import json
import re
import sys
import tomllib
from importlib.metadata import distributions

import pytest

from snippets.site import ROOT

EXACT = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>\d[\w.]*)")
# They come with Python's own venv, and the last is this repository.
OWN = {"pip", "setuptools", "wheel", "boundary-and-density"}
# A CUDA build of PyTorch brings and pins its libraries itself; the README says how to avoid it.
CUDA = re.compile(r"nvidia-|cuda-|triton$")
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [EXACT.fullmatch(line) for line in lines if line and not line.startswith("#")]
    return {normal(pin["name"]): pin["version"] for pin in pins if pin}


def installed() -> dict[str, str]:
    """Name → version of every distribution in this environment; +cpu and the like left out."""
    found = {normal(d.name): d.version.partition("+")[0] for d in distributions()}
    return {name: v for name, v in found.items() if name not in OWN and not CUDA.match(name)}


def test_every_line_of_the_constraints_is_exact():
    for number, line in enumerate((ROOT / "constraints.txt").read_text("utf-8").splitlines(), 1):
        exact = line.startswith("#") or EXACT.fullmatch(line)
        assert exact, f"constraints.txt:{number}: {line!r} is not exact → write name==version"


def test_no_package_is_constrained_twice():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(constraints()) == len(pins)


@pytest.mark.skipif(sys.platform != "linux", reason="the list is made on Linux; others add to it")
def test_everything_installed_is_constrained():
    pinned = constraints()
    wrong = [
        f"{name} {version}: constraints.txt says {pinned.get(name, 'nothing')}"
        for name, version in sorted(installed().items())
        if pinned.get(name) != version
    ]
    assert not wrong, "\n".join([*wrong, "→ run `make install`, or pin the new ones"])


@pytest.mark.skipif(sys.platform != "linux", reason="the list is made on Linux; others need less")
def test_everything_constrained_is_installed():
    assert sorted(constraints().keys() - installed().keys()) == []


def test_every_dependency_has_a_reason():
    listed = re.compile(r'^    "[A-Za-z][^"]*",(?P<rest>.*)$', re.M)
    tables = re.findall(r"^(?:dependencies|test|builders) = \[\n(.*?)^\]$", PYPROJECT, re.M | re.S)
    lines = [match for table in tables for match in listed.finditer(table)]
    project = tomllib.loads(PYPROJECT)["project"]
    groups = project["optional-dependencies"]
    declared = [*project["dependencies"], *(name for group in groups.values() for name in group)]
    assert len(lines) == len(declared), "one dependency a line, each in a list that is read here"
    for match in lines:
        assert re.search(r"#\s+\S.{9}", match["rest"]), f"{match[0].strip()}: no reason → add one"


def test_the_other_builders_are_pinned_where_they_are_named():
    for requirement in tomllib.loads(PYPROJECT)["project"]["optional-dependencies"]["builders"]:
        assert EXACT.fullmatch(requirement), f"{requirement} → write name==version"


def test_the_tools_of_node_are_locked_and_name_no_address():
    folder = ROOT / "tests/site/tools"
    manifest = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    lock = json.loads((folder / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    for name, version in {**manifest["devDependencies"], **manifest["overrides"]}.items():
        assert lock[f"node_modules/{name}"]["version"] == version, f"{name}: {version} is not exact"
    for name, package in lock.items():
        assert "resolved" not in package, f"{name}: run npm in {folder.name}/, which has an .npmrc"
        assert not name or package.get("integrity", "").startswith("sha512-"), name
