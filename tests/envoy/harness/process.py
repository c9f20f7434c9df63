"""A program under test, with its output in files; it is ended by its pid, never by name."""

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import httpx

from tests.envoy.harness.forking import Forked
from tests.envoy.harness.polling import eventually
from tests.plain import NO_AUTHORITIES

__all__ = ["ManagedProcess"]

ENDS_WITHIN_S = 20


class ManagedProcess:
    """A running program; stdout and stderr go to files in `folder`. `admin` is a client for its admin port."""

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        self.name = name
        # One client for all requests to the admin port, because creating one takes longer than a request. But a
        # new connection per request: on a kept one, a server that writes head and body separately waits 40 ms for
        # the acknowledgement of the head.
        self.admin = httpx.Client(
            timeout=10, verify=NO_AUTHORITIES, limits=httpx.Limits(max_keepalive_connections=0)
        )
        self.out, self.err = folder / f"{name}.out", folder / f"{name}.err"
        self._process = self._start(command, self.out, self.err)

    @staticmethod
    def _start(command: Sequence[str], out_file: Path, err_file: Path) -> subprocess.Popen[bytes] | Forked:
        with out_file.open("wb") as out, err_file.open("wb") as err:
            return subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the program is still running."""
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send the program a signal."""
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """Kill the program with SIGKILL."""
        self._process.kill()
        self._process.wait(ENDS_WITHIN_S)
        self.admin.close()

    def terminate(self) -> int:
        """Send SIGTERM and return the exit code; kill the program and raise if it does not end in time.

        Raises:
            subprocess.TimeoutExpired: It had to be killed.
        """
        if self.running:
            self._process.terminate()
        return self.wait()

    def wait(self) -> int:
        """Wait for the end and return the exit code; kill the program and raise if it does not end in time.

        Raises:
            subprocess.TimeoutExpired: It had to be killed.
        """
        self.admin.close()
        try:
            return self._process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def await_log(self, part: str) -> str:
        """Wait for a line on stderr that contains `part`, and return it; fail if the program ends first."""

        def line() -> str | None:
            found = next((line for line in self.log_lines() if part in line), None)
            assert found or self.running, f"{self.name} ended with {self._process.returncode}:\n{self.log_tail()}"
            return found

        return eventually(line, f"{self.name} logs {part!r}", within_s=30) or ""

    def log_lines(self) -> list[str]:
        """Return the lines written to stderr so far."""
        return self.err.read_text("utf-8", "replace").splitlines()

    def log_tail(self, lines: int = 60) -> str:
        """Return the last lines of stderr, for a failure report."""
        return "\n".join(self.log_lines()[-lines:])
