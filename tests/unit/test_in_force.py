"""What follows when a routing is put in force: the timers of the loop, on a clock that the test advances."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from extproc.config.loading import parse
from extproc.server.deadlines import Deadlines
from extproc.server.in_force import InForce


def closed_at_s(idle_s: int, last_message_s: float) -> float:
    """Return when a stream is closed whose last message came at that time."""
    closed: list[float] = []
    now_s = 0.0

    def close_idle(before_s: float) -> None:
        if last_message_s < before_s:
            closed.append(now_s)

    routing = SimpleNamespace(configuration=parse(f"listen: {{idle_s: {idle_s}}}"), deadlines=Deadlines(1.0))
    streams: Any = SimpleNamespace(routing=routing, close_idle=close_idle)
    timers: list[Any] = []
    unused: Any = None
    changed: Callable[[], None] = threading.Event().set
    InForce(unused, timers, streams, unused, certificates=None, changed=changed)
    while not closed:
        now_s += 1.0
        for timer in timers:
            if timer.next_s <= now_s:
                timer.expire(now_s)
    return closed[0]


def test_an_idle_stream_is_closed_soon_after_its_time() -> None:
    """A stream on which nothing came for idle_s is closed within another quarter of that."""
    times = [closed_at_s(100, last_s) - last_s for last_s in range(1, 200, 7)]
    assert min(times) > 100
    assert max(times) <= 126  # the clock ticks once a second
