"""`dualpool demo`, with the real Envoy."""

import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from extproc.demo import gateway, show, stack
from tests.plain import NO_AUTHORITIES

COMMAND = [sys.executable, "-m", "extproc.cli.main", "demo", "--requests", "40"]
WITHIN_S = 120.0


@contextmanager
def demo(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the demo, and kill it at the end of the block or after `WITHIN_S`."""
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )
    overdue = threading.Timer(WITHIN_S, process.kill)
    overdue.start()
    try:
        with process:
            yield process
            process.send_signal(signal.SIGKILL)
    finally:
        overdue.cancel()


def alive(pid: int) -> bool:
    """Return whether a process still exists."""
    return Path(f"/proc/{pid}").exists()


def children_of(pid: int) -> list[int]:
    """Return the ids of a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()]


def test_once_as_json_is_the_summary_and_nothing_else() -> None:
    """With --once --json, stdout is the summary: all requests served, refusals repaired; the exit code is 0."""
    with demo("--once", "--json") as process:
        output, errors = process.communicate()
    assert process.returncode == 0, errors
    summary = json.loads(output)
    assert (summary["requests"], summary["failed"], summary["refused_rightly"]) == (40, 0, 1)
    assert summary["short"] + summary["long"] == 40
    assert summary["repaired"] == summary["misrouted"] + 1
    failed_once = summary["kinds"]["short pool fails"]
    assert (failed_once["requests"], failed_once["long"], failed_once["misrouted"]) == (1, 1, 0)
    assert failed_once["repaired"] == 1
    cold_start = summary["kinds"]["cold start"]
    assert (cold_start["long"], cold_start["over_counted"]) == (1, 0)
    assert 0 < summary["median_abs_error"] < 1
    assert {"latin", "markup"} <= {each["category"] for each in summary["bytes_per_token"]}


def test_it_keeps_running_until_ctrl_c_and_leaves_nothing() -> None:
    """Without --once, the printed address serves requests; Ctrl-C ends all processes, with exit code 0."""
    with demo() as process:
        assert process.stdout is not None
        urls = (re.search(r"curl -i (http://[\d.:]+/v1/chat/completions)", line) for line in process.stdout)
        url = next(found[1] for found in urls if found)
        body = {"model": "demo-model", "max_tokens": 9000, "messages": [{"role": "user", "content": "Hello!"}]}
        response = httpx.post(url, json=body, timeout=30, verify=NO_AUTHORITIES)
        children = children_of(process.pid)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        process.wait()
    assert (response.status_code, response.headers["x-served-by"]) == (200, "long")
    assert len(children) == 4
    assert process.returncode == 0
    assert not any(map(alive, children))


def test_a_failed_start_shows_the_log_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """If a part does not start, the end of its log is shown, the exit code is 1, and the other parts are ended."""
    monkeypatch.setattr(gateway, "_command", lambda *_: ["/bin/sh", "-c", "echo no such filter >&2; exit 3"])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    children: list[int] = []

    class Watched(stack.Stack):
        def end(self) -> None:
            children.extend(child.pid for child in self.children)
            super().end()

    monkeypatch.setattr(show, "Stack", Watched)
    code = show.run(show.Options(once=True, as_json=True, requests=40))
    shown = capsys.readouterr()
    assert (code, shown.out) == (1, "")
    assert "envoy ended with exit code 3." in shown.err
    assert "no such filter" in shown.err
    assert str(tmp_path) in shown.err
    assert len(children) == 4
    assert not any(map(alive, children))
