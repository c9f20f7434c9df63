"""Child processes that do not outlive the demo, and whose logs are shown if they fail.

Each child has its own session, so that Ctrl-C reaches only the demo, which decides in what order the children
stop. On Linux the kernel kills the children if the demo dies in any other way.
"""

import os
import shutil
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
# Becomes the child once the kernel is to kill it with its parent (prctl(2), PR_SET_PDEATHSIG), which may have died
# before that. It is a program, because `preexec_fn` forks a process that may have threads: that can deadlock the
# child, and the handlers with which gRPC reacts to a fork left calls of the parent without a response. Python
# ignores SIGPIPE and SIGXFSZ, and what is ignored stays so across exec.
_DIE_WITH_PARENT = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
try:
    os.execv(sys.argv[2], sys.argv[3:])
except OSError as error:
    sys.exit(f"{sys.argv[2]} cannot be run: {error.strerror}")
"""


class StartFailed(DualpoolError):
    """A part of the demo did not start; the message names it and shows the end of its log."""


class Child:
    """A running program; its output goes to `log`."""

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        self.name = name
        self.command = list(command)
        self.log = folder / f"{name}.log"
        program = shutil.which(self.command[0])
        if program is None:
            raise StartFailed(f"{name} cannot be run: {self.command[0]}: no such program")
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  (our own programs)
                _dying_with_parent(program, self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

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


def _dying_with_parent(program: str, command: Sequence[str]) -> list[str]:
    """Return a command that runs `command`, whose program is at `program`; on Linux it dies with this process."""
    if sys.platform != "linux":
        return [*command]
    return [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), program, *command]
