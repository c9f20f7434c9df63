"""The thread that does all the work: it polls the core, expires timers, and runs functions for other threads."""

import time
from asyncio import wrap_future
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

from extproc.server.grpc_core import Core

__all__ = ["Loop", "Timers"]

# The longest that other threads and signals wait to be served: the core has no call that wakes a poll.
TICK_S = 0.02
# The same after so many ticks in a row without any work: ticks are most of what an idle process takes of the CPU.
IDLE_TICK_S = 0.1
IDLE_AFTER = 50
# Other threads often ask several things in a row: so many ordinary ticks follow each, even in an idle process.
TICKS_AFTER_ASKED = 5
# How often timers are checked while events come back to back; a timer expires late by this at most.
CHECKS_EVERY_S = 0.002

T = TypeVar("T")


class Timers(Protocol):
    """Something that is due from time to time."""

    @property
    def next_s(self) -> float:
        """When it is due next, by time.monotonic(); infinity for never."""
        ...

    def expire(self, now_s: float) -> None:
        """Called when something is due."""
        ...


class Loop:
    """Runs until it is stopped; an exception in one handler is reported to `failed`; the others keep running."""

    def __init__(self, core: Core, timers: Sequence[Timers], failed: Callable[[Exception], None]) -> None:
        self._core = core
        self._timers = timers
        self._failed = failed
        self._pending: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._next_check_s = 0.0
        self._idle_ticks = 0

    def run(self, until: Callable[[], bool]) -> None:
        """Work until `until()` is true; it is called after each event and each tick."""
        poll, pending, now = self._core.poll, self._pending, time.monotonic
        while not until():
            try:
                now_s = now()
                until_s = self._next_check_s if now_s < self._next_check_s else self._expire_timers(now_s)
                if poll(until_s - now_s):
                    self._idle_ticks = 0
                else:
                    self._next_check_s = 0.0
                    self._idle_ticks += 1
                if not pending.empty():
                    self._idle_ticks = min(self._idle_ticks, IDLE_AFTER - TICKS_AFTER_ASKED)
                    self._run_pending()
            except Exception as error:  # noqa: BLE001  (whatever it is, the other calls go on)
                self._failed(error)

    def ask(self, function: Callable[[], T], within_s: float) -> T:
        """Run a function on the loop and return its result; for other threads. Raises TimeoutError."""
        future = self.submit(function)
        try:
            return future.result(within_s)
        finally:
            future.cancel()

    def ask_each(self, functions: Callable[[], Sequence[Callable[[], T]]], within_s: float) -> list[T]:
        """Ask for functions, then ask each of them, with events in between; return the results, as `ask` does."""
        return [self.ask(each, within_s) for each in self.ask(functions, within_s)]

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Run a function on the loop; the future gets its result or exception."""
        future: Future[T] = Future()
        self._pending.put((function, future))
        return future

    def awaited(self, function: Callable[[], Any]) -> Awaitable[Any]:
        """Run a function on the loop; for coroutines on another thread, which await its result."""
        return wrap_future(self.submit(function))

    def post(self, function: Callable[[], object]) -> None:
        """Run a function on the loop without waiting for it; an exception is reported to `failed`."""
        future: Future[object] = Future()
        future.add_done_callback(self._report)
        self._pending.put((function, future))

    def _report(self, future: Future[object]) -> None:
        if isinstance(error := future.exception(), Exception):
            self._failed(error)

    def _expire_timers(self, now_s: float) -> float:
        """Expire all timers that are due; return when to look again if no event comes first."""
        due_s = now_s + (TICK_S if self._idle_ticks < IDLE_AFTER else IDLE_TICK_S)
        for timer in self._timers:
            if timer.next_s <= now_s:
                timer.expire(now_s)
            due_s = min(due_s, timer.next_s)
        self._next_check_s = min(due_s, now_s + CHECKS_EVERY_S)
        return due_s

    def _run_pending(self) -> None:
        try:
            while True:
                function, future = self._pending.get_nowait()
                if future.set_running_or_notify_cancel():
                    try:
                        future.set_result(function())
                    except Exception as error:  # noqa: BLE001  (the other thread handles it)
                        future.set_exception(error)
        except Empty:
            pass
