"""Starting a worker's process, with the channel to it."""

import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import extproc
from extproc.workers.channel import Channel

__all__ = ["start_process"]

# A folder that the program is started in must not shadow modules, unless it is where the program is.
_ROOT = Path(extproc.__file__).parents[1]
_PYTHON: Final = [sys.executable, *([] if Path(sys.path[0] or ".").resolve() == _ROOT else ["-P"])]


def start_process(number: int) -> tuple[subprocess.Popen[bytes], Channel]:
    """Start the process of a worker, which waits for its first question; return it, and our end of the channel."""
    ours, its = socket.socketpair()
    with its:
        command = [*_PYTHON, "-m", "extproc.workers.worker", str(its.fileno()), str(number)]
        # Not forked: gRPC, and the threads of this process, would not survive that.
        process = subprocess.Popen(command, pass_fds=(its.fileno(),), stdin=subprocess.DEVNULL)  # noqa: S603  (ourselves)
    return process, Channel(Connection(ours.detach()))
