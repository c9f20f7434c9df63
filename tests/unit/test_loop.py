"""The loop over gRPC core's events and timers, on a clock that the test advances."""

import time
from collections.abc import Callable
from math import inf
from typing import cast

import pytest

from extproc.server.grpc_core import Core
from extproc.server.loop import CHECKS_EVERY_S, IDLE_AFTER, IDLE_TICK_S, TICK_S, TICKS_AFTER_ASKED, Loop

EVENT_S = 0.0005


class _Clock:
    """A clock and a core with this many events; a poll advances the clock by an event's work, or by its wait."""

    def __init__(self, events: float) -> None:
        self.now_s = 100.0
        self.waits_s: list[float] = []
        self.on_event: Callable[[], None] = lambda: None
        self.events = events

    def poll(self, wait_s: float) -> bool:
        self.waits_s.append(wait_s)
        if self.events < 1:
            self.now_s += max(wait_s, 0.0)
            return False
        self.events -= 1
        self.now_s += EVENT_S
        self.on_event()
        return True


class _Timer:
    def __init__(self, due_s: float, clock: _Clock) -> None:
        self.next_s = due_s
        self.expired_s: list[float] = []
        self._clock = clock

    def expire(self, _now_s: float) -> None:
        self.expired_s.append(self._clock.now_s)
        self.next_s = inf


Clocked = Callable[[float, float], tuple[_Clock, _Timer, Loop]]


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> Clocked:
    """Return a function that makes a clock, a timer that is due after `due_s`, and a loop on that clock."""

    def make(events: float, due_s: float) -> tuple[_Clock, _Timer, Loop]:
        clock = _Clock(events)
        monkeypatch.setattr(time, "monotonic", lambda: clock.now_s)
        timer = _Timer(clock.now_s + due_s, clock)
        return clock, timer, Loop(cast("Core", clock), [timer], lambda error: pytest.fail(str(error)))

    return make


def test_a_timer_is_hardly_delayed_by_ceaseless_events(clocked: Clocked) -> None:
    """A due timer runs within two milliseconds and two events, however many events come."""
    clock, timer, loop = clocked(inf, 0.05)
    due_s = timer.next_s
    loop.run(lambda: bool(timer.expired_s) or clock.now_s > due_s + 1)
    assert due_s <= timer.expired_s[0] <= due_s + CHECKS_EVERY_S + 2 * EVENT_S


def test_without_events_a_timer_runs_when_it_is_due(clocked: Clocked) -> None:
    """A poll waits until the next timer is due, but at most for a tick."""
    clock, timer, loop = clocked(0, 1.5 * TICK_S)
    due_s = timer.next_s
    loop.run(lambda: bool(timer.expired_s) or clock.now_s > due_s + 1)
    assert pytest.approx(due_s) == timer.expired_s[0]
    assert pytest.approx([TICK_S, TICK_S / 2]) == clock.waits_s[:2]


def test_a_timer_set_by_an_event_runs_when_it_is_due(clocked: Clocked) -> None:
    """A deadline shorter than a tick that is set by an event does not wait for the end of the tick."""
    clock, timer, loop = clocked(1, inf)

    def set_timer() -> None:
        timer.next_s = clock.now_s + TICK_S / 4

    clock.on_event = set_timer
    loop.run(lambda: bool(timer.expired_s) or clock.now_s > 100.0 + 2 * TICK_S)
    assert pytest.approx(100.0 + EVENT_S + TICK_S / 4) == timer.expired_s[0]


def test_an_idle_loop_wakes_less_often(clocked: Clocked) -> None:
    """After enough ticks without any work, each wait is longer; a timer still runs when it is due."""
    clock, timer, loop = clocked(0, IDLE_AFTER * TICK_S + 2.5 * IDLE_TICK_S)
    due_s = timer.next_s
    loop.run(lambda: bool(timer.expired_s))
    assert pytest.approx([TICK_S] * IDLE_AFTER) == clock.waits_s[:IDLE_AFTER]
    assert pytest.approx([IDLE_TICK_S, IDLE_TICK_S, IDLE_TICK_S / 2]) == clock.waits_s[IDLE_AFTER:][:3]
    assert pytest.approx(due_s) == timer.expired_s[0]


@pytest.mark.parametrize(("work", "ticks"), [("an event", IDLE_AFTER), ("a function", TICKS_AFTER_ASKED)])
def test_work_ends_idleness(work: str, ticks: int, clocked: Clocked) -> None:
    """After an event, or a function for another thread, so many waits are for an ordinary tick at most."""
    clock, _, loop = clocked(0, inf)
    loop.run(lambda: len(clock.waits_s) > IDLE_AFTER)
    assert pytest.approx(IDLE_TICK_S) == clock.waits_s[-1]
    if work == "an event":
        clock.events = 1
    else:
        loop.post(lambda: None)
    polls = len(clock.waits_s) + 1  # the one that takes the work
    loop.run(lambda: len(clock.waits_s) == polls + ticks + 1)
    assert max(clock.waits_s[polls : polls + ticks]) <= TICK_S < clock.waits_s[polls + ticks]


def test_a_loop_that_is_asked_something_is_not_idle_sooner(clocked: Clocked) -> None:
    """A function for another thread shortens no time without work that has to pass before the longer waits."""
    clock, _, loop = clocked(0, inf)
    loop.post(lambda: None)
    loop.run(lambda: len(clock.waits_s) == IDLE_AFTER + 1)
    assert pytest.approx([TICK_S] * IDLE_AFTER) == clock.waits_s[:IDLE_AFTER]


def test_what_nobody_waits_for_any_more_is_not_run(clocked: Clocked) -> None:
    """A function whose caller got a TimeoutError is not run later: a reload that failed changes nothing."""
    clock, _, loop = clocked(3, inf)
    run: list[str] = []
    with pytest.raises(TimeoutError):
        loop.ask(lambda: run.append("too late"), 0.0)
    loop.submit(lambda: run.append("in time"))
    ends_s = clock.now_s + 1
    loop.run(lambda: clock.now_s > ends_s)
    assert ["in time"] == run


def test_an_exception_that_nobody_waits_for_is_reported(clocked: Clocked) -> None:
    """An exception of a posted function is reported; the loop goes on."""
    clock, _, loop = clocked(3, inf)
    reported: list[Exception] = []
    loop._failed = reported.append
    loop.post(lambda: 1 / 0)
    ends_s = clock.now_s + 1
    loop.run(lambda: clock.now_s > ends_s)
    assert [ZeroDivisionError] == [type(each) for each in reported]
