"""Memory that was freed, given back to the system.

glibc's malloc gives back what is free at the end of its heap, and keeps what lies below anything that is still in
use: after 32 bodies of 2 MB at once that is 100 MB, for good. So its malloc_trim is called when the process has
grown, which takes about a millisecond for each 20 MB: while nothing waits for it, or else seldom.

Rejected: thresholds by mallopt or the environment. Messages come in pieces of some kilobytes, which stay below all
of them (docs/architecture.md).
"""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["FreedMemory", "give_back", "resident_bytes"]

# Below this growth it is not worth it.
GROWTH_BYTES: Final = 16 << 20
# While streams are open, it is looked at so often.
BUSY_EVERY_S: Final = 30.0
_STATM: Final = Path("/proc/self/statm")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """Return the resident memory of the process; 0 where the system does not say."""
    try:
        return int(_STATM.read_bytes().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


def give_back() -> None:
    """Give back all whole pages that are free; nothing where the allocator is not glibc's."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


class FreedMemory:
    """Gives memory back when there is more than there was; `busy` says that somebody would wait for it."""

    def __init__(
        self,
        busy: Callable[[], bool],
        resident: Callable[[], int] = resident_bytes,
        give: Callable[[], None] = give_back,
    ) -> None:
        self._busy = busy
        self._resident = resident
        self._give = give
        self._least = resident()
        self._next_s = 0.0

    def look(self, now_s: float) -> None:
        """Called every second or so."""
        if self._busy() and now_s < self._next_s:
            return
        self._next_s = now_s + BUSY_EVERY_S
        resident = self._resident()
        if resident - self._least > GROWTH_BYTES:
            self._give()
            resident = self._least = self._resident()
        self._least = min(self._least, resident)
