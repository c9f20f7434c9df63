"""The thread that does all the work: polls the core, lets deadlines come, does what other threads ask for."""

import time
from asyncio import wrap_future
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

from extproc.server.grpc_core import Core

__all__ = ["Loop", "Timers"]

# How long other threads, and signals, wait at most until they are served: the core has no call that wakes a poll.
TICK_S = 0.02
# While events come one after the other, timers are looked at so often; one that is due is late by that at most.
LOOKS_EVERY_S = 0.002

T = TypeVar("T")


class Timers(Protocol):
    """Something that is due from time to time."""

    @property
    def next_s(self) -> float:
        """When it is due next, by time.monotonic(); infinite for never."""
        ...

    def expire(self, now_s: float) -> None:
        """Called when something is due."""
        ...


class Loop:
    """Runs until it is stopped; what goes wrong in one handler is told to `failed`, and the others go on."""

    def __init__(self, core: Core, timers: Sequence[Timers], failed: Callable[[Exception], None]) -> None:
        self._core = core
        self._timers = timers
        self._failed = failed
        self._asked: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._looks_s = 0.0

    def run(self, until: Callable[[], bool]) -> None:
        """Work until `until()`, which is asked after each event and each tick."""
        poll, asked, now = self._core.poll, self._asked, time.monotonic
        while not until():
            try:
                now_s = now()
                until_s = self._looks_s if now_s < self._looks_s else self._look(now_s)
                if not poll(until_s - now_s):
                    self._looks_s = 0.0
                if not asked.empty():
                    self._do_what_is_asked()
            except Exception as error:  # noqa: BLE001  (whatever it is, the other calls go on)
                self._failed(error)

    def ask(self, function: Callable[[], T], within_s: float) -> T:
        """Return what a function returns on the loop; for other threads. Raises TimeoutError."""
        future = self.submit(function)
        try:
            return future.result(within_s)
        finally:
            future.cancel()

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Have a function called on the loop; what it returns or raises is in the future."""
        future: Future[T] = Future()
        self._asked.put((function, future))
        return future

    def awaited(self, function: Callable[[], Any]) -> Awaitable[Any]:
        """Have a function called on the loop; for coroutines of another thread, which wait for what it returns."""
        return wrap_future(self.submit(function))

    def tell(self, function: Callable[[], object]) -> None:
        """Have a function called on the loop, without waiting for it; what it raises is told to `failed`."""
        future: Future[object] = Future()
        future.add_done_callback(self._report)
        self._asked.put((function, future))

    def _report(self, future: Future[object]) -> None:
        if isinstance(error := future.exception(), Exception):
            self._failed(error)

    def _look(self, now_s: float) -> float:
        """Have all timers expire that are due; return when to look again if nothing comes before."""
        due_s = now_s + TICK_S
        for timer in self._timers:
            if timer.next_s <= now_s:
                timer.expire(now_s)
            due_s = min(due_s, timer.next_s)
        self._looks_s = min(due_s, now_s + LOOKS_EVERY_S)
        return due_s

    def _do_what_is_asked(self) -> None:
        try:
            while True:
                function, future = self._asked.get_nowait()
                if future.set_running_or_notify_cancel():
                    try:
                        future.set_result(function())
                    except Exception as error:  # noqa: BLE001  (it is the other thread's)
                        future.set_exception(error)
        except Empty:
            pass
