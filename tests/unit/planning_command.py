"""Helpers for tests of `dualpool plan`: a trace to plan from, and arguments that have to be rejected."""

from pathlib import Path

import pytest

from extproc.cli import main as command_line

__all__ = ["HEADER", "refusal_of", "write_trace"]

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def write_trace(path: Path) -> Path:
    """Write a trace of short requests with some long ones, at one request a second."""
    rows = [
        f"2023-11-16 18:{second // 60:02}:{second % 60:02},"
        f"{12_000 if second % 10 == 0 else 300 + second},{20 + second % 90}\n"
        for second in range(600)
    ]
    path.write_text(HEADER + "".join(rows))
    return path


def refusal_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command, expect exit code 2 and one line of error, and return that line."""
    code = command_line.main(["plan", *arguments])
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert len(captured.err.strip().splitlines()) == 1
    assert "Traceback" not in captured.err
    return captured.err
