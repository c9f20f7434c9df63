"""The start of a worker's process.

    python -m extproc.workers FILE_DESCRIPTOR NUMBER

Ctrl-C in a terminal signals the workers, too. One that still loads its code has nothing to end, and must not write
a traceback: until it handles signals, the kernel ends it.
"""

import signal
import sys

from extproc.server.freed_memory import share_arenas

__all__ = ["start"]


def start() -> int:
    """Load the worker and run it; return its exit code."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # process.py has blocked it
    share_arenas()
    from extproc.workers.worker import main  # noqa: PLC0415  (this takes most of a second)

    code = main()
    # As in cli/serve.py: a worker that is asked twice to end has ended all the same.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    return code


if __name__ == "__main__":
    sys.exit(start())
