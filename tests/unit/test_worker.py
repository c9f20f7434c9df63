"""A worker on its own: what it does with signals, and the alarm by which the kernel ends it."""

import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from extproc.config.schema import Configuration
from extproc.workers import worker
from extproc.workers.channel import Question


@pytest.fixture
def alarms(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list of the alarms that are set from now on; none of them rings."""
    found: list[int] = []
    monkeypatch.setattr(signal, "alarm", found.append)
    return found


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> dict[int, Any]:
    """Return the signal handlers that are set from now on; none of them is in force."""
    found: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", found.__setitem__)
    return found


def run_until_the_supervisor_exits(monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a worker whose supervisor exits before it asks for anything; return the exit code."""
    ours, its = socket.socketpair()
    ours.close()
    monkeypatch.setattr(sys, "argv", ["worker", str(its.detach()), "0"])
    return worker.main()


def test_a_worker_that_is_never_asked_is_ended_by_the_kernel(
    monkeypatch: pytest.MonkeyPatch, alarms: list[int], handlers: dict[int, Any]
) -> None:
    """From its start it has a minute; when its supervisor has exited, half a minute to end by itself."""
    assert 2 == run_until_the_supervisor_exits(monkeypatch)
    assert [60, 30] == alarms
    assert handlers


def test_a_worker_that_cannot_answer_exits(
    monkeypatch: pytest.MonkeyPatch, alarms: list[int], handlers: dict[int, Any]
) -> None:
    """If threads have run out before it could answer anything, it does not let its supervisor wait."""

    def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    ended: list[Any] = []
    monkeypatch.setattr(worker, "answer_all", no_thread)
    monkeypatch.setattr(threading, "excepthook", ended.append)
    assert 2 == run_until_the_supervisor_exits(monkeypatch)
    assert [60, 30] == alarms
    assert [RuntimeError] == [each.exc_type for each in ended]
    assert handlers


def test_a_worker_leaves_a_reload_to_its_supervisor(
    monkeypatch: pytest.MonkeyPatch, alarms: list[int], handlers: dict[int, Any]
) -> None:
    """A terminal, or systemd, sends SIGHUP to the workers, too: it must not end them."""
    run_until_the_supervisor_exits(monkeypatch)
    assert signal.SIG_IGN == handlers[signal.SIGHUP]
    assert {signal.SIGHUP, signal.SIGTERM, signal.SIGINT} == handlers.keys()
    assert alarms


def test_a_worker_that_nobody_has_checked_for_a_minute_is_ended_by_the_kernel(alarms: list[int]) -> None:
    """Each answer to ALIVE gives it another minute; one whose loop does not answer gets none."""

    def hung(*_: object) -> bool:
        raise TimeoutError

    checked = worker._Worker(0)
    asks: list[Callable[..., bool]] = [lambda ready, _within_s: ready(), hung, lambda ready, _within_s: ready()]
    minutes = []
    for ask in asks:
        app: Any = SimpleNamespace(ready=True, loop=SimpleNamespace(ask=ask))
        checked._app = app
        try:
            assert b"\xc3" == checked._answer(Question.ALIVE, b"")
        except TimeoutError:
            assert ask is hung
        minutes.append(list(alarms))
    assert [[60], [60], [60, 60]] == minutes


def test_what_a_worker_would_write_to_stderr_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its warnings and unhandled exceptions are log lines from before its router is made."""
    done: list[str] = []

    def made(*_: object, **_named: object) -> None:
        done.append("app")
        raise InterruptedError

    monkeypatch.setattr(worker, "configure_logging", lambda *_, **_named: done.append("logging"))
    monkeypatch.setattr(worker, "log_stray_lines", lambda: done.append("stray lines"))
    monkeypatch.setattr(worker, "App", made)
    with pytest.raises(InterruptedError):
        worker._Worker(0)._start(Configuration())
    assert ["logging", "stray lines", "app"] == done
