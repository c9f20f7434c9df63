"""The package metadata and documents that users rely on."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from ruamel.yaml import YAML

import extproc
from extproc.cli.main import main

ROOT = Path(__file__).parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
GENERATED = Path(extproc.__file__).parent / "state" / "pb" / "state_pb2.py"


def supported() -> list[str]:
    """Return the Python versions that the Makefile accepts, newest first."""
    (found,) = re.findall(r"^SUPPORTED := (.+)$", MAKEFILE, re.MULTILINE)
    return str(found).split()


def test_every_file_that_the_metadata_names_is_there() -> None:
    """The package's description, licence and the project's documents exist and are not empty."""
    named = [PROJECT["readme"], *PROJECT["license-files"]]
    for name in (*named, "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", ".pre-commit-config.yaml"):
        assert (ROOT / name).stat().st_size > 0, name


def test_sdist_lists_files_that_exist() -> None:
    """Every path that MANIFEST.in puts into the sdist exists."""
    for line in (ROOT / "MANIFEST.in").read_text("utf-8").splitlines():
        directive, *names = line.split()
        if directive in {"graft", "include"}:
            assert [] == [name for name in names if not (ROOT / name).exists()]


def test_licence_is_the_one_that_is_named() -> None:
    """LICENSE is the Apache License 2.0, as the metadata says."""
    heading = (ROOT / "LICENSE").read_text("utf-8").split("TERMS AND CONDITIONS")[0].split()
    assert ["Apache", "License", "Version", "2.0,"] == heading[:4]
    assert "Apache-2.0" == PROJECT["license"]


def test_there_is_one_version(capsys: pytest.CaptureFixture[str]) -> None:
    """pyproject.toml, the module, the installed package and the command line give the same version."""
    with pytest.raises(SystemExit):
        main(["--version"])
    assert [PROJECT["version"]] * 3 == [
        extproc.__version__,
        version("dualpool"),
        capsys.readouterr().out.removeprefix("dualpool ").strip(),
    ]


def test_deployment_uses_the_image_of_this_version() -> None:
    """The image that the documents build is the one that the manifests run, and its tag is the version."""
    for file in ("Dockerfile", "README.md", "kubernetes/deployment.yaml"):
        tags = re.findall(r"\bdualpool:(\d+\.\S*)", (ROOT / "deploy" / file).read_text("utf-8"))
        assert {PROJECT["version"]} == set(tags), file


def test_chart_has_this_version() -> None:
    """The chart's own version is this one as Semantic Versioning writes it; it runs the image of this version."""
    chart = YAML(typ="safe").load((ROOT / "deploy" / "helm" / "dualpool" / "Chart.yaml").read_text("utf-8"))
    assert PROJECT["version"] == chart["appVersion"]
    assert re.fullmatch(r"\d+\.\d+\.\d+(-dev\.\d+)?", chart["version"])
    assert Version(PROJECT["version"]) == Version(chart["version"])


def test_only_a_release_has_the_version_of_a_release() -> None:
    """With unreleased changes the version is a later development version; without, that of the newest release."""
    _, unreleased, released = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text("utf-8"), flags=re.MULTILINE)[:3]
    heading, *changes = unreleased.splitlines()
    assert "[Unreleased]" == heading
    newest = re.match(r"\[(\S+)\] - \d{4}-\d\d-\d\d\n", released)
    assert newest is not None
    this = Version(PROJECT["version"])
    if any(changes):
        assert this.is_devrelease
        assert this > Version(newest[1])
    else:
        assert this == Version(newest[1])


def test_classifiers_name_the_versions_that_make_accepts() -> None:
    """The classifiers list the Python versions that the lock files and development support."""
    classified = re.findall(
        r"^Programming Language :: Python :: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), re.MULTILINE
    )
    assert sorted(supported()) == sorted(classified)


def test_the_oldest_python_is_the_same_everywhere() -> None:
    """The package, ruff and mypy use the oldest supported version as their lower bound."""
    oldest = min(supported(), key=Version)
    tools = PYPROJECT["tool"]
    assert f">={oldest}" == PROJECT["requires-python"]
    assert (f"py{oldest.replace('.', '')}", oldest) == (
        tools["ruff"]["target-version"],
        tools["mypy"]["python_version"],
    )


def test_the_locked_build_requirements_are_those_of_the_build_system() -> None:
    """The dependency group that deploy/build-requirements.txt is made from
    has the requirements of [build-system].
    """
    asked = map(str, map(Requirement, PYPROJECT["build-system"]["requires"]))
    locked = map(str, map(Requirement, PYPROJECT["dependency-groups"]["build"]))
    assert sorted(asked) == sorted(locked)


def test_protobuf_is_at_least_as_new_as_the_generated_code() -> None:
    """The metadata allows no protobuf older than the generated code, which would refuse to load with it."""
    generated = re.findall(r"^# Protobuf Python Version: (\S+)$", GENERATED.read_text("utf-8"), re.MULTILINE)
    (protobuf,) = (asked for asked in map(Requirement, PROJECT["dependencies"]) if asked.name == "protobuf")
    allowed = [Version(part.version) for part in protobuf.specifier if part.operator == ">="]
    assert [Version(found) for found in generated] <= allowed
