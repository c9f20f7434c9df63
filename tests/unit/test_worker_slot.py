"""Restarting a worker that keeps ending."""

import errno
import gc
import logging
import os
import signal
import subprocess
import threading
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from extproc.config.schema import Configuration
from extproc.telemetry.workers import Replaced, WorkerMetrics
from extproc.workers.channel import ChannelClosed, Question
from extproc.workers.process import Patience, start_process
from extproc.workers.slot import ANSWERS_WITHIN_S, Slot

PATIENCE = Patience(steady_after_s=10, first_wait_s=0.1, longest_wait_s=5, stuck_after_s=7)


class Ending:
    """Signals the router's shutdown after a number of waits, without really waiting."""

    def __init__(self, waits: int) -> None:
        self.waited_s: list[float] = []
        self._waits = waits

    def is_set(self) -> bool:
        """Return whether there have been that many waits."""
        return len(self.waited_s) == self._waits

    def wait(self, seconds: float) -> bool:
        """Record a wait."""
        self.waited_s.append(seconds)
        return False


@pytest.mark.parametrize(
    ("cause", "lasts_s", "expected"),
    [
        (Replaced.ENDED, 1, [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]),
        (Replaced.NOT_STARTED, 60, [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]),
        (Replaced.ENDED, 10, [0] * 9),
        (Replaced.STUCK, 60, [0] * 9),
    ],
    ids=["ends soon", "does not start", "has served", "is stuck later"],
)
def test_a_worker_that_keeps_ending_is_restarted_with_growing_waits(
    monkeypatch: pytest.MonkeyPatch, cause: Replaced, lasts_s: int, expected: list[float]
) -> None:
    """The first restart is immediate; then the wait grows up to a few seconds. A
    worker that has served is restarted at once.
    """
    slot = Slot(0, 1, Configuration, WorkerMetrics(CollectorRegistry(), 1), PATIENCE)
    ending, seconds = Ending(len(expected)), count(0, lasts_s)
    monkeypatch.setattr("extproc.workers.slot.time", SimpleNamespace(monotonic=lambda: next(seconds)))
    monkeypatch.setattr(slot, "_ending", ending)
    monkeypatch.setattr(slot, "_watch", lambda: cause)
    for name in ("_retire", "_restart"):
        monkeypatch.setattr(slot, name, lambda *_: None)
    slot._keep()
    assert expected == pytest.approx(ending.waited_s)


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EMFILE, "Too many open files"), RuntimeError("can't start new thread"), MemoryError()],
    ids=["descriptors", "threads", "memory"],
)
def test_a_worker_is_replaced_when_what_had_run_out_is_there_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """A process that cannot be started for lack of descriptors, threads or memory is logged and tried again."""
    slot = Slot(0, 1, Configuration, WorkerMetrics(CollectorRegistry(), 1), PATIENCE)
    tries: list[int] = []

    def start_process(number: int) -> Any:
        tries.append(number)
        raise error

    monkeypatch.setattr("extproc.workers.slot.start_process", start_process)
    monkeypatch.setattr(slot, "_ending", Ending(3))
    slot._keep()
    assert [0, 0] == tries, "the last wait ends in the router's end"
    said = str(error) or "MemoryError"
    errors = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert [f"a worker did not start: {said}"] * 2 == errors


@pytest.mark.parametrize("place", ["_watch", "_retire"])
def test_a_slot_goes_on_watching_when_it_failed_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    """If the supervisor has no memory for a moment, or cannot decode an answer, the thread logs that, waits,
    and watches again: without it a worker that ends would not be replaced.
    """
    slot = Slot(0, 1, Configuration, WorkerMetrics(CollectorRegistry(), 1), PATIENCE)
    ending, restarted = Ending(3), []

    def fail_once(*_: object) -> Replaced:
        if not ending.waited_s:
            raise MemoryError
        return Replaced.ENDED

    monkeypatch.setattr(slot, "_ending", ending)
    monkeypatch.setattr(slot, "_watch", lambda: Replaced.ENDED)
    monkeypatch.setattr(slot, "_retire", lambda _cause: None)
    monkeypatch.setattr(slot, "_restart", lambda: restarted.append(True))
    monkeypatch.setattr(slot, place, fail_once)
    slot._keep()
    assert ending.waited_s[0] == PATIENCE.longest_wait_s
    assert [True, True] == restarted
    assert "a worker could not be watched: MemoryError" in caplog.text


@pytest.mark.parametrize("started", [0, 1])
def test_a_worker_without_a_channel_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, started: int) -> None:
    """If the channel's threads cannot be started, the process is ended and the descriptors are closed."""
    processes: list[subprocess.Popen[bytes]] = []
    left, start = iter(range(started)), threading.Thread.start

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            processes.append(self)

    def start_or_not(thread: threading.Thread) -> None:
        if next(left, None) is None:
            raise RuntimeError("can't start new thread")
        threads.append(thread)
        start(thread)

    threads: list[threading.Thread] = []
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    monkeypatch.setattr(subprocess, "Popen", Popen)
    monkeypatch.setattr(threading.Thread, "start", start_or_not)
    with pytest.raises(RuntimeError, match="new thread"):
        start_process(0)
    for thread in threads:
        thread.join(10)
    gc.collect()
    assert [-signal.SIGKILL] == [each.returncode for each in processes]
    assert before == os.listdir("/proc/self/fd")  # noqa: PTH208


@pytest.mark.parametrize("answer", [None, ChannelClosed(), TimeoutError()])
@pytest.mark.parametrize("at_once", [False, True])
def test_a_worker_that_hangs_at_the_end_is_killed(answer: Exception | None, at_once: bool) -> None:  # noqa: FBT001
    """One that does not answer the request to drain gets the time after which it counts as stuck, one that is to
    end at once gets less. A worker that answers, or has ended, is not killed.
    """
    slot = Slot(0, 1, Configuration, WorkerMetrics(CollectorRegistry(), 1), PATIENCE)
    asked: list[tuple[Question, float]] = []
    killed: list[bool] = []

    def ask(question: Question, _content: bytes, *, within_s: float) -> bytes:
        asked.append((question, within_s))
        if answer is not None:
            raise answer
        return b""

    channel: Any = SimpleNamespace(ask=ask)
    process: Any = SimpleNamespace(kill=lambda: killed.append(True))
    slot._channel, slot._process = channel, process
    slot.end(at_once=at_once)
    assert [(Question.HURRY, ANSWERS_WITHIN_S) if at_once else (Question.END, 7)] == asked
    assert isinstance(answer, TimeoutError) is bool(killed)
