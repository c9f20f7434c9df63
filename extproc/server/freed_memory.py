"""Freed memory: kept together, and returned to the system.

glibc's malloc returns free memory at the end of its heap, but keeps all that lies below a block that is in use:
100 MB, forever, after 32 concurrent bodies of 2 MB. So its malloc_trim is called when the process has grown. That
takes about a millisecond per 20 MB, so it is done while nothing waits for it, or else rarely.

malloc also gives threads heaps (arenas) of their own, eight for each core, and each keeps the most that its thread
ever needed. Saving, sharing and showing a full state takes tens of megabytes, on whichever thread is free: so all
threads share two.

Rejected: thresholds set with mallopt or the environment. Messages arrive in pieces of a few kilobytes, which are
below all of them (docs/architecture.md).
"""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["FreedMemory", "resident_bytes", "share_arenas", "trim"]

# Less growth is not worth a trim.
GROWTH_BYTES: Final = 16 << 20
# How often growth is checked while streams are open.
BUSY_EVERY_S: Final = 30.0
_M_ARENA_MAX: Final = -8  # of glibc's malloc.h
_ARENAS: Final = 2
_STATM: Final = Path("/proc/self/statm")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """Return the resident memory of the process; 0 if the system does not report it."""
    try:
        return int(_STATM.read_bytes().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


def trim() -> None:
    """Return all free pages to the system; does nothing if the allocator is not glibc's."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(ctypes.c_size_t(0))


def share_arenas() -> None:
    """Bound the number of arenas, before there are threads; does nothing if the allocator is not glibc's."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)


class FreedMemory:
    """Returns memory to the system after the process has grown; `busy`: whether requests would wait for that."""

    def __init__(
        self,
        busy: Callable[[], bool],
        resident: Callable[[], int] = resident_bytes,
        release: Callable[[], None] = trim,
    ) -> None:
        self._busy = busy
        self._resident = resident
        self._release = release
        self._least = resident()
        self._next_s = 0.0

    def look(self, now_s: float) -> None:
        """Called about once a second."""
        if self._busy() and now_s < self._next_s:
            return
        self._next_s = now_s + BUSY_EVERY_S
        resident = self._resident()
        if resident - self._least > GROWTH_BYTES:
            self._release()
            resident = self._least = self._resident()
        self._least = min(self._least, resident)
