"""The locked versions satisfy pyproject.toml."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def locked(name: str) -> dict[str, str]:
    """Return the versions of a lock file by package name."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")
    return {
        canonicalize_name(name): version for name, version in re.findall(r"^(\S+?)==(\S+)", text, re.MULTILINE)
    }


def test_every_dependency_is_locked_at_a_version_that_is_allowed() -> None:
    """runtime.txt has all requirements of the wheel; the container installs nothing else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    versions = locked("runtime")
    for requirement in map(Requirement, project["dependencies"]):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


def test_development_uses_the_versions_of_the_container() -> None:
    """The development environment has every version of the container, and more packages."""
    assert locked("runtime").items() <= locked("dev").items()
