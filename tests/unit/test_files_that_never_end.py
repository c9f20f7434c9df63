"""Commands with endless or huge files, or with closed standard input: one line, and exit code 2."""

import subprocess
import sys
from pathlib import Path

import pytest

from extproc.cli.main import main

STREAMED = str(Path(__file__).parents[2] / "envoy" / "streamed.yaml")
COMMANDS = (
    ["check"],
    ["check", "envoy"],
    ["check", "envoy", STREAMED, "--config"],
    ["render", "envoy", "--config"],
    ["estimate"],
    ["estimate", STREAMED, "--config"],
    ["estimate", STREAMED, "--token-file"],
    ["state", "show"],
    ["serve", "--config"],
    ["plan", "--rate", "1", "--trace"],
    ["plan", "--rate", "1", "--metrics"],
    ["plan", "--rate", "1", "--mean-tokens", "100,100", "--catalogue"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("file", ["endless", "sparse", "directory"])
def test_a_file_is_read_up_to_a_limit(
    command: list[str], file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An endless file, one that is too large, or a directory is reported in one line that names it."""
    name = {"endless": "/dev/zero", "sparse": str(tmp_path / "sparse"), "directory": str(tmp_path)}[file]
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(3 << 30)
    extra = ["--admin", "http://127.0.0.1:1"] if "--token-file" in command else []
    assert 2 == main([*command, name, *extra])
    error = capsys.readouterr().err
    assert Path(name).name in error
    assert 1 == error.count("\n")


def test_closed_standard_input_is_reported() -> None:
    """`dualpool estimate -` reports it like a missing file."""
    command = [sys.executable, "-m", "extproc.cli.main", "estimate", "-"]
    closing = f"import os; os.close(0); os.execv({sys.executable!r}, {command})"
    result = subprocess.run(
        [sys.executable, "-c", closing], capture_output=True, text=True, check=False, timeout=60
    )
    assert (2, "dualpool estimate: FILE -: standard input is closed\n") == (result.returncode, result.stderr)
