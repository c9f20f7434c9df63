"""`dualpool` as a copy of a process that has already loaded its modules, which is most of what a start costs.

From its command line on, such a router does the same as one in a new process. That a new process gets so far is
for the tests of the commands, the workers, the demo and the wheel.
"""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["Forked"]

# All that a router loads until it serves.
MODULES = (
    "extproc.cli.main",
    "extproc.cli.serve",
    "extproc.config.loading",
    "extproc.server.app",
    "extproc.telemetry.log",
    "extproc.telemetry.stray_lines",
)
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__, *MODULES])


class Forked:
    """A running `dualpool`, with the part of the interface of Popen that the tests use."""

    def __init__(self, arguments: Sequence[str], out: Path, err: Path) -> None:
        there = {**os.environ}
        self._process = _CONTEXT.Process(target=_run, args=(list(arguments), out, err, there), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        """Wait for the end and return the exit code.

        Raises:
            subprocess.TimeoutExpired: It has not ended in time.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("dualpool", timeout)
        return self._process.exitcode

    def terminate(self) -> None:
        """Send SIGTERM if it runs."""
        self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL if it runs."""
        self._process.kill()


def _run(arguments: list[str], out: Path, err: Path, environment: dict[str, str]) -> None:
    for path, standard in ((out, 1), (err, 2)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), standard)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    sys.exit(sys.modules["extproc.cli.main"].main(arguments))
