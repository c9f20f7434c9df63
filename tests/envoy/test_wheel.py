"""The wheel, built as the container's is: from a clean copy of the sources, and run without them."""

import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ["pyproject.toml", "setup.py", "README.md", "protos", "extproc"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from what is committed: nothing that an earlier build left behind."""
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
    """No folder of ours but extproc is in it: a top-level `envoy` or `tests` would get into the way of others."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {"extproc", f"dualpool-{importlib.metadata.version('dualpool')}.dist-info"} == {
        name.partition("/")[0] for name in names
    }
    assert {"extproc/py.typed", "extproc/state/pb/state_pb2.py"} <= set(names)


def test_wheel_serves(wheel: Path, tmp_path: Path) -> None:
    """The router of the wheel imports all it needs, and refuses a wrong configuration in one sentence."""
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
