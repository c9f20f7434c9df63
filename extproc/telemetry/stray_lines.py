"""What Python itself would write to stderr, logged instead.

Warnings, exceptions in destructors, and those that end a thread are written by the thread that meets them. If
stderr is a pipe that is not read, it waits forever, and it may be the one that decides.
"""

import logging
import sys
import threading
import warnings
from typing import TextIO

__all__ = ["log_stray_lines"]

log = logging.getLogger("dualpool")


def log_stray_lines() -> None:
    """From now on, log warnings and exceptions that nothing handles."""
    # Not logging.captureWarnings: its lines all come from one place, and log.py passes one a minute of each place.
    warnings.showwarning = _warned
    sys.unraisablehook = _unraisable
    threading.excepthook = _ended_thread


def _warned(  # noqa: PLR0917  (as warnings calls it)
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001  (nobody names one)
    line: str | None = None,
) -> None:
    """Log a warning as coming from the line that it is about."""
    logger = logging.getLogger("py.warnings")
    if logger.isEnabledFor(logging.WARNING):
        text = warnings.formatwarning(message, category, filename, lineno, line)
        logger.handle(logger.makeRecord(logger.name, logging.WARNING, filename, lineno, "%s", (text,), None))


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
