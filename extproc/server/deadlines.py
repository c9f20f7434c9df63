"""The deadlines of all streams that have the same time limit.

They are in a heap, and only its first is checked. A queue would not do: streams are added in the order in which
they are read, and those that came while the loop lagged began before some that were read earlier. Streams that no
longer wait are dropped when they come first: most have been decided long before their deadline.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Protocol

__all__ = ["Deadlines", "Sweep", "Waiting"]


class Waiting(Protocol):
    """Something that may be waiting at its deadline.

    If it waits a second time and is added again, its first deadline may end that wait early.
    """

    @property
    def waits(self) -> bool:
        """Whether it is still waiting."""
        ...

    def on_deadline(self) -> None:
        """Called when the time is up."""
        ...


class Deadlines:
    """Calls `on_deadline` of each stream that is still waiting `after_s` seconds after it began."""

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._queue: list[tuple[float, int, Waiting]] = []
        self._added = 0  # decides between equal deadlines: streams cannot be compared

    @property
    def after_s(self) -> float:
        """How long each stream may wait."""
        return self._after_s

    @property
    def next_s(self) -> float:
        """When the next deadline is due, on the clock of `began_s` in `add`; infinity if there is none."""
        return self._queue[0][0] if self._queue else float("inf")

    def add(self, stream: Waiting, began_s: float) -> None:
        """Add the deadline of a stream that began at `began_s`."""
        queue = self._queue
        while queue and not queue[0][-1].waits:
            heappop(queue)
        self._added += 1
        heappush(queue, (began_s + self._after_s, self._added, stream))

    def expire(self, now_s: float) -> None:
        """Call `on_deadline` of the waiting streams whose deadlines are due."""
        queue = self._queue
        while queue and (queue[0][0] <= now_s or not queue[0][-1].waits):
            stream = heappop(queue)[-1]
            if stream.waits:
                stream.on_deadline()


class Sweep:
    """Calls a function every `every_s` seconds."""

    def __init__(self, every_s: float, sweep: Callable[[float], None]) -> None:
        self._every_s = every_s
        self._sweep = sweep
        self.next_s = 0.0

    def expire(self, now_s: float) -> None:
        """Call the function with the time, and schedule the next call."""
        self.next_s = now_s + self._every_s
        self._sweep(now_s)
