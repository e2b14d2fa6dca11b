"""What is imported is installed: pyproject.toml and the tree agree."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import cv2
import pytest

ROOT = Path(__file__).parent.parent
OURS = ("server", "engine", "client", "tools")
SYSTEMS = {"gi"}  # of an example that runs on the system's Python
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
AGENTS = tomllib.loads((ROOT / "client" / "agents" / "pyproject.toml").read_text())["project"]


def modules_imported_in(package: str) -> set[str]:
    """Top-level names of other people's modules, wherever in a file they are imported."""
    found = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {*OURS, *SYSTEMS, "tests"}


def name_of(requirement: str) -> str:
    """``pillow`` of ``Pillow>=11,<14``."""
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")


def pinned_in_makefile() -> set[str]:
    return {name_of(r) for r in re.findall(r"^[A-Z]+\s*:=\s*(\S+==\S+)$", (ROOT / "Makefile").read_text(), re.M)}


@pytest.mark.parametrize("package", OURS)
def test_every_module_imported_is_named_as_a_dependency(package):
    extras = PROJECT["optional-dependencies"]
    named = {name_of(r) for r in [*PROJECT["dependencies"], *(r for extra in extras.values() for r in extra)]}
    named |= pinned_in_makefile()
    if package == "client":  # a distribution of its own; its extras are called as the modules are
        named |= set(AGENTS["optional-dependencies"])
    made_by = packages_distributions()
    missing = {}
    for module in modules_imported_in(package):
        distributions = {name_of(d) for d in made_by.get(module, [module])}
        if not distributions & named:
            missing[module] = sorted(distributions)
    assert not missing, f"{package}/ imports what pyproject.toml does not name: {missing}"


def test_opencv_is_the_headless_build():
    gui = re.search(r"GUI:\s*(\S+)", cv2.getBuildInformation())
    assert gui and gui[1] == "NONE", (
        "this OpenCV wants a window system and does not import where libGL is missing: make setup installs the other; "
        "by hand: pip uninstall opencv-contrib-python, then pip install --force-reinstall --no-deps "
        "opencv-contrib-python-headless"
    )
