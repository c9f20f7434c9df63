"""Commands whose output cannot be written: a message and an exit code, but no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "extproc.cli.main", "check"]


@pytest.fixture
def full() -> Path:
    """Return a file that cannot be written to."""
    path = Path("/dev/full")
    if not path.exists():
        pytest.skip("this machine has no /dev/full")
    return path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Write a valid configuration; return its path."""
    path = tmp_path / "router.yaml"
    path.write_text("mode: shadow")
    return path


def test_a_full_disk_is_a_failure(full: Path, good: Path) -> None:
    """If output cannot be written, the error is on stderr, and the exit code is 1."""
    with full.open("w") as nothing:
        done = subprocess.run([*COMMAND, good], stdout=nothing, stderr=subprocess.PIPE, text=True, check=False)
    assert (1, "dualpool check: [Errno 28] No space left on device\n") == (done.returncode, done.stderr)


def test_a_closed_reader_fails_silently(good: Path) -> None:
    """`dualpool ... | head -0` prints no error."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*COMMAND, good], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (1, "") == (done.returncode, done.stderr)
