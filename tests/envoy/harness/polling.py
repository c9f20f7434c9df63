"""Waiting for a condition instead of sleeping."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["eventually"]

T = TypeVar("T")
_PAUSE = threading.Event()


def eventually(condition: Callable[[], T], what: str, within_s: float = 15.0) -> T:
    """Return the first true value of `condition`; fail, naming `what`, if there is none in time."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {what}")
        _PAUSE.wait(0.02)
    return value
