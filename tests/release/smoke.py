"""Tries the command `dualpool` that is installed beside the Python that runs this; `make release-check` does.

Nothing but the standard library is imported: the environment holds what a user's would, and no test tools.
"""

import json
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import urllib.request
from importlib.metadata import version
from pathlib import Path

COMMAND = str(Path(sysconfig.get_path("scripts")) / "dualpool")
BODY = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "How are you?"}]}
CONFIGURATION = "listen: {address: '127.0.0.1:0'}\nadmin: {address: '127.0.0.1:0'}\ndrain_s: 0\n"
TIMEOUT_S = 60


def main() -> int:
    """Run each check in a folder of its own; return 0, or 1 and say what was found instead."""
    failures = 0
    for check in (says_its_version, estimates_a_body, serves_until_sigterm):
        with tempfile.TemporaryDirectory() as folder:
            try:
                check(Path(folder))
            except (AssertionError, OSError, subprocess.SubprocessError, ValueError) as error:
                failures += 1
                print(f"{check.__name__}: failed: {error!r}", file=sys.stderr)
            else:
                print(f"{check.__name__}: passed")
    return min(failures, 1)


def says_its_version(folder: Path) -> None:
    """`dualpool --version` prints the version that is installed."""
    printed = _run(folder, "--version").strip()
    assert f"dualpool {version('dualpool')}" == printed, printed


def estimates_a_body(folder: Path) -> None:
    """`dualpool estimate -` places a short body from standard input in the smallest pool."""
    printed = json.loads(_run(folder, "estimate", "--json", "-", stdin=json.dumps(BODY)))
    assert ("short", "fits") == (printed["estimate"]["pool"], printed["estimate"]["reason"]), printed


def serves_until_sigterm(folder: Path) -> None:
    """`dualpool serve` starts, answers /healthz, and ends with exit code 0 on SIGTERM."""
    (folder / "router.yaml").write_text(CONFIGURATION, "utf-8")
    with subprocess.Popen(
        [COMMAND, "serve", "--config", "router.yaml"], cwd=folder, stderr=subprocess.PIPE, text=True
    ) as router:
        assert router.stderr is not None
        overdue = threading.Timer(TIMEOUT_S, router.kill)
        overdue.start()
        try:
            line = router.stderr.readline()
            assert '"message":"serving"' in line, line + router.stderr.read()
            with urllib.request.urlopen(f"http://{json.loads(line)['admin']}/healthz", timeout=10) as reply:
                assert 200 == reply.status, reply.status
            router.send_signal(signal.SIGTERM)
            rest = router.stderr.read()
        finally:
            router.kill()
            overdue.cancel()
    assert 0 == router.returncode, f"exit code {router.returncode}: {rest}"


def _run(folder: Path, *arguments: str, stdin: str = "") -> str:
    done = subprocess.run(
        [COMMAND, *arguments],
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert 0 == done.returncode, f"exit code {done.returncode}: {done.stderr}"
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
