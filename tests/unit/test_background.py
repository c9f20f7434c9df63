"""Background jobs: start, restart after a failure, stop."""

import asyncio
import logging
import threading
from functools import partial

import pytest

from extproc.server.background import AGAIN_AFTER_S, Background


def test_a_job_runs_until_it_is_stopped_and_cleans_up() -> None:
    """A job is cancelled at the end; the jobs have stopped once it has cleaned up."""
    started, cleaned_up = threading.Event(), threading.Event()

    async def job() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up.set()

    background = Background([job], print)
    background.start()
    assert started.wait(10)
    assert not background.stopped
    background.stop()
    background._thread.join(10)
    assert background.stopped
    assert cleaned_up.is_set()


def test_a_job_that_failed_is_logged_and_restarted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job's failure is reported, and neither ends it for good nor affects the other jobs. The pause before it is
    restarted keeps one that fails at once from taking all the time.
    """
    pauses: list[float] = []
    no_time = partial(asyncio.sleep, 0)
    attempts: list[int] = []
    failures: list[Exception] = []
    twice, other = threading.Event(), threading.Event()

    async def failing() -> None:
        attempts.append(1)
        if len(attempts) > 1:
            twice.set()
        raise RuntimeError

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await no_time()

    async def sound() -> None:
        await asyncio.to_thread(twice.wait, 10)
        other.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio, "sleep", pause)
    background = Background([failing, sound], failures.append)
    with caplog.at_level(logging.ERROR, "dualpool"):
        background.start()
        assert other.wait(10)
        background.stop()
        background._thread.join(10)
    assert "is restarted" in caplog.text
    assert len(attempts) == len(failures)
    assert {AGAIN_AFTER_S} == set(pauses)


def test_without_jobs_there_is_no_thread() -> None:
    """A router without background jobs starts no thread."""
    threads = threading.active_count()
    background = Background([], print)
    background.start()
    assert threads == threading.active_count()
    background.stop()
