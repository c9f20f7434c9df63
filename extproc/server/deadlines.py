"""One timer for the deadlines of all streams.

Every stream may be held equally long, so they come due in the order in which they began: a queue and a single
timer for its head serve all. Streams that were answered in time are dropped from the head when the timer comes, so
that under load it comes once in a deadline's time, not once for each stream.
"""

import asyncio
from collections import deque
from typing import Protocol

__all__ = ["Deadlines", "Held"]


class Held(Protocol):
    """Something that may be waiting when its deadline comes; once it waits no more, it never does again."""

    @property
    def waits(self) -> bool:
        """Whether it still waits."""
        ...

    def on_deadline(self) -> None:
        """Called when the time is over."""
        ...


class Deadlines:
    """Calls `on_deadline` of each stream that still waits `after_s` seconds after it was added."""

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
        queue = self._queue
        while queue and (queue[0][0] <= now_s or not queue[0][1].waits):
            _, held = queue.popleft()
            if held.waits:
                held.on_deadline()
        self._timer = loop.call_at(queue[0][0], self._on_timer) if queue else None
