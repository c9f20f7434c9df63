"""What Python itself would write to stderr, logged instead.

Warnings, exceptions in destructors, and those that end a thread are written by the thread that meets them. If
stderr is a pipe that is not read, it waits forever, and it may be the one that decides.
"""

import logging
import sys
import threading

__all__ = ["log_stray_lines"]

log = logging.getLogger("dualpool")


def log_stray_lines() -> None:
    """From now on, log warnings and exceptions that nothing handles."""
    logging.captureWarnings(True)  # noqa: FBT003  (the standard library's)
    sys.unraisablehook = _unraisable
    threading.excepthook = _ended_thread


def _unraisable(what: "sys.UnraisableHookArgs") -> None:
    # Not its object: to keep that, even for a log line, could revive it.
    error = None if what.exc_value is None else (what.exc_type, what.exc_value, what.exc_traceback)
    log.error("%s", what.err_msg or "an exception that cannot be raised", exc_info=error)


def _ended_thread(what: threading.ExceptHookArgs) -> None:
    if what.exc_type is SystemExit or what.exc_value is None:
        return
    name = None if what.thread is None else what.thread.name
    error = what.exc_type, what.exc_value, what.exc_traceback
    log.error("an exception has ended a thread", exc_info=error, extra={"fields": {"thread": name}})
