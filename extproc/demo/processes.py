"""Child processes that do not outlive the demo, and whose logs are shown if they fail.

Each child has its own session, so that Ctrl-C reaches only the demo, which decides in what order the children
stop. On Linux the kernel kills the children if the demo dies in any other way.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from extproc.core.errors import DualpoolError

__all__ = ["Child", "StartFailed"]

T = TypeVar("T")
STARTS_WITHIN_S = 30.0
ENDS_WITHIN_S = 3.0
TAIL_BYTES = 3000
_POLL_S = 0.02
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class StartFailed(DualpoolError):
    """A part of the demo did not start; the message names it and shows the end of its log."""


class Child:
    """A running program; its output goes to `log`."""

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        self.name = name
        self.command = list(command)
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            try:
                self._process = subprocess.Popen(  # noqa: S603  (our own programs)
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509  (no thread is running yet)
                )
            except OSError as error:
                raise StartFailed(f"{name} cannot be run: {error}\n  command: {' '.join(self.command)}") from error

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def wait_for(self, look: Callable[[], T | None], what: str) -> T:
        """Poll `look` and return its first result. Raises StartFailed if the child ends or time runs out."""
        deadline = time.monotonic() + STARTS_WITHIN_S
        while (found := look()) is None:
            if not self.running:
                raise StartFailed(f"{self.name} ended with exit code {self._process.returncode}.{self._details()}")
            if time.monotonic() > deadline:
                raise StartFailed(f"{self.name} had no {what} within {STARTS_WITHIN_S:.0f} s.{self._details()}")
            time.sleep(_POLL_S)
        return found

    def terminate(self) -> None:
        """Send SIGTERM."""
        if self.running:
            self._process.terminate()

    def end(self) -> None:
        """Wait ENDS_WITHIN_S for the process to end, then kill it."""
        try:
            self._process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _details(self) -> str:
        tail = self.log.read_bytes()[-TAIL_BYTES:].decode(errors="replace").strip()
        lines = "\n".join(f"  | {line}" for line in tail.splitlines()) or "  | (empty)"
        return f"\n  command: {' '.join(self.command)}\n  log: {self.log}\n{lines}"


def _die_with(parent: int) -> Callable[[], None] | None:
    """Return a function that a child calls to die with its parent (prctl(2), PR_SET_PDEATHSIG); None off Linux."""
    libc = _LIBC
    if libc is None:
        return None

    def in_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before the call
            os._exit(1)

    return in_child
