"""Starting a worker process, with a channel to it, and how long it is waited for."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import msgspec

import extproc
from extproc.config.schema import Configuration
from extproc.config.worker_addresses import of_worker
from extproc.workers.channel import Channel, Started

__all__ = ["Patience", "settings_of", "start_process"]

# The current directory must not shadow modules, unless the program itself is located there.
_ROOT = Path(extproc.__file__).parents[1]
_PYTHON: Final = [sys.executable, *([] if Path(sys.path[0] or ".").resolve() == _ROOT else ["-P"])]


@dataclass(frozen=True, slots=True)
class Patience:
    """Intervals and time limits of a slot, in seconds."""

    start_s: float = 60.0
    asks_every_s: float = 1.0
    stuck_after_s: float = 10.0
    """A worker that has not answered for this long counts as stuck."""
    steady_after_s: float = 10.0
    """A process that has run for this long resets the delay before its replacement to zero."""
    first_wait_s: float = 0.1
    longest_wait_s: float = 5.0


def start_process(number: int) -> tuple[subprocess.Popen[bytes], Channel]:
    """Start a worker process, which waits for its first question; return it and our end of the channel.

    Raises OSError or RuntimeError if descriptors, processes or threads have run out; nothing is left then.
    """
    ours, its = socket.socketpair()
    with ours, its:
        command = [*_PYTHON, "-m", "extproc.workers", str(its.fileno()), str(number)]
        # Not forked: neither gRPC nor this process's threads would survive a fork.
        with _undisturbed():
            process = subprocess.Popen(command, pass_fds=(its.fileno(),), stdin=subprocess.DEVNULL)  # noqa: S603  (ourselves)
        try:
            return process, Channel(Connection(ours.detach()))
        except RuntimeError:
            process.kill()
            process.wait()
            raise


def settings_of(configuration: Configuration, number: int, workers: int, before: Started | None) -> bytes:
    """Return the encoded settings of worker `number`: a successor keeps the ports of the process `before` it, even
    if the setting allows any port.
    """
    own = of_worker(configuration, number, workers)
    if before is not None:
        kept = replace(own.listen, address=before.address, health_address=before.health_address)
        own = replace(own, listen=kept)
    return msgspec.json.encode(own)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Block SIGHUP and SIGINT in this thread, and thereby in processes that it starts: a terminal or systemd may
    signal workers that have not come to ignoring the one and handling the other yet.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP, signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
