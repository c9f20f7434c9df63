"""What a command says may not get through: a sentence and an exit code, and no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "extproc.cli.main", "check"]


@pytest.fixture
def full() -> Path:
    """A file that nothing can be written to."""
    path = Path("/dev/full")
    if not path.exists():
        pytest.skip("this machine has no /dev/full")
    return path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Write a configuration that can be used."""
    path = tmp_path / "router.yaml"
    path.write_text("mode: shadow")
    return path


def test_a_full_disk_is_a_failure(full: Path, good: Path) -> None:
    """Output that cannot be written is told on stderr, and the exit code is 1."""
    with full.open("w") as nothing:
        done = subprocess.run([*COMMAND, good], stdout=nothing, stderr=subprocess.PIPE, text=True, check=False)
    assert (1, "dualpool check: [Errno 28] No space left on device\n") == (done.returncode, done.stderr)


def test_a_reader_that_has_gone_is_none(good: Path) -> None:
    """`dualpool ... | head -0` says nothing of it."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*COMMAND, good], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (1, "") == (done.returncode, done.stderr)
