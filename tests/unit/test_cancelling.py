"""Tasks that lose a cancellation end all the same."""

import asyncio

import pytest

from extproc.cancelling import cancelled


async def _stubborn(lost: list[int], most: int) -> None:
    """Wait for ever, and lose the first cancellations, as asyncio.wait_for does in Python 3.11."""
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if len(lost) == most:
                raise
            lost.append(1)


def test_a_task_that_loses_cancellations_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each task is cancelled until it is done, also next to one that is done at once."""

    async def scenario() -> tuple[list[int], list[bool]]:
        lost: list[int] = []
        tasks = [asyncio.create_task(_stubborn(lost, 2)), asyncio.create_task(asyncio.sleep(0))]
        await asyncio.sleep(0)
        await cancelled(tasks)
        return lost, [task.cancelled() for task in tasks]

    monkeypatch.setattr("extproc.cancelling.AGAIN_AFTER_S", 0.001)
    lost, ended = asyncio.run(scenario())
    assert ([1, 1], True) == (lost, ended[0])


def test_there_may_be_no_task() -> None:
    """Then there is nothing to wait for."""
    asyncio.run(cancelled([]))
