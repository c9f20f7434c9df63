"""The metrics of a slot's processes: those of the running process, and the counts of the ones before it.

The counts of a process that has ended are kept, so that the slot's counters do not fall when it is replaced.
"""

import threading
from collections.abc import Callable, Sequence

import msgspec

from extproc.telemetry.families import Ended, Family

__all__ = ["SlotMetrics"]


class SlotMetrics:
    """Thread-safe; `ask` returns the encoded metrics of the running process."""

    def __init__(self, ask: Callable[[], bytes]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._ended = Ended()
        # The number of the question that was answered last, and its answer.
        self._current: tuple[int, Sequence[Family]] = (0, ())
        self._last_number = 0

    def refresh(self) -> None:
        """Ask for the metrics; an answer to an older question never replaces the answer to a newer one.

        Raises what `ask` raises.
        """
        with self._lock:
            self._last_number += 1
            number = self._last_number
        families = msgspec.msgpack.decode(self._ask(), type=list[Family])
        with self._lock:
            if number > self._current[0]:
                self._current = number, families

    def retire(self) -> None:
        """Called when the process has ended: add its last known metrics to those of the ended processes."""
        with self._lock:
            self._ended.add(self._current[1])
            self._current = (self._last_number, ())

    def families(self) -> tuple[Sequence[Family], Sequence[Family]]:
        """Return the last known metrics of the running process, and the sum over all processes before it."""
        with self._lock:
            return self._current[1], self._ended.families()
