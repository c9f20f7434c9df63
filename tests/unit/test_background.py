"""Background jobs: start, restart after a failure, stop."""

import asyncio
import logging
import threading

import pytest

from extproc.server.background import Background


def test_a_job_runs_until_it_is_stopped_and_cleans_up() -> None:
    """A job is cancelled at the end, and `stop` waits while it cleans up."""
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
    background.stop()
    assert cleaned_up.is_set()


def test_a_job_that_failed_is_logged_and_restarted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job's failure is reported, and neither ends it for good nor affects the other jobs."""
    attempts: list[int] = []
    failures: list[Exception] = []
    twice, other = threading.Event(), threading.Event()

    async def failing() -> None:
        attempts.append(1)
        if len(attempts) > 1:
            twice.set()
        raise RuntimeError

    async def sound() -> None:
        await asyncio.to_thread(twice.wait, 10)
        other.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("extproc.server.background.AGAIN_AFTER_S", 0)
    background = Background([failing, sound], failures.append)
    with caplog.at_level(logging.ERROR, "dualpool"):
        background.start()
        assert other.wait(10)
        background.stop()
    assert "is restarted" in caplog.text
    assert len(attempts) == len(failures)


def test_without_jobs_there_is_no_thread() -> None:
    """A router without background jobs starts no thread."""
    threads = threading.active_count()
    background = Background([], print)
    background.start()
    assert threads == threading.active_count()
    background.stop()
