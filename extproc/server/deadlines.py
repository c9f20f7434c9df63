"""One timer for the deadlines of all streams.

Every stream may be held equally long, so they come due in the order in which they began: a queue and a single
timer for its head serve all. A stream that was answered in time stays in the queue until then, and is skipped.
"""

import asyncio
from collections import deque
from typing import Protocol

__all__ = ["Deadlines", "Held"]


class Held(Protocol):
    """Something that may be waiting when its deadline comes."""

    def on_deadline(self) -> None:
        """Hear that the time is over; called whether or not it still waits."""
        ...


class Deadlines:
    """Calls `on_deadline` of each stream, `after_s` seconds after it was added."""

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._queue: deque[tuple[float, Held]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, held: Held, now_s: float) -> None:
        """Start the time of one stream; `now_s` is the event loop's clock."""
        self._queue.append((now_s + self._after_s, held))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(self._queue[0][0], self._on_timer)

    def _on_timer(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        while self._queue and self._queue[0][0] <= now_s:
            self._queue.popleft()[1].on_deadline()
        self._timer = loop.call_at(self._queue[0][0], self._on_timer) if self._queue else None
