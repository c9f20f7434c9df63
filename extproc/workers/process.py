"""Starting a worker process, with a channel to it."""

import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import extproc
from extproc.workers.channel import Channel

__all__ = ["start_process"]

# The current directory must not shadow modules, unless the program itself is located there.
_ROOT = Path(extproc.__file__).parents[1]
_PYTHON: Final = [sys.executable, *([] if Path(sys.path[0] or ".").resolve() == _ROOT else ["-P"])]


def start_process(number: int) -> tuple[subprocess.Popen[bytes], Channel]:
    """Start a worker process, which waits for its first question; return it and our end of the channel."""
    ours, its = socket.socketpair()
    with its:
        command = [*_PYTHON, "-m", "extproc.workers.worker", str(its.fileno()), str(number)]
        # Not forked: neither gRPC nor this process's threads would survive a fork.
        process = subprocess.Popen(command, pass_fds=(its.fileno(),), stdin=subprocess.DEVNULL)  # noqa: S603  (ourselves)
    return process, Channel(Connection(ours.detach()))
