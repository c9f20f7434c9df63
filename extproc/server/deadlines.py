"""The deadlines of all streams that have the same time limit.

They expire in the order in which the streams began, so there is one queue, and only its head is checked. Streams
that no longer wait are dropped when they reach the head: most have been decided long before their deadline.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

__all__ = ["Deadlines", "Held", "Sweep"]


class Held(Protocol):
    """Something that may be waiting at its deadline; after it has stopped waiting, it never waits again."""

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
        self._queue: deque[tuple[float, Held]] = deque()

    @property
    def after_s(self) -> float:
        """How long each stream may wait."""
        return self._after_s

    @property
    def next_s(self) -> float:
        """When the next deadline is due, on the clock of `began_s` in `add`; infinity if there is none."""
        return self._queue[0][0] if self._queue else float("inf")

    def add(self, held: Held, began_s: float) -> None:
        """Add the deadline of a stream that began at `began_s`."""
        queue = self._queue
        while queue and not queue[0][1].waits:
            queue.popleft()
        queue.append((began_s + self._after_s, held))

    def expire(self, now_s: float) -> None:
        """Call `on_deadline` of the waiting streams whose deadlines are due."""
        queue = self._queue
        while queue and (queue[0][0] <= now_s or not queue[0][1].waits):
            _, held = queue.popleft()
            if held.waits:
                held.on_deadline()


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
