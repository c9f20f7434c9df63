"""Cancelling tasks that may lose a cancellation, as in Python 3.11's `asyncio.wait_for`, which redis-py uses.

If it is cancelled at the moment when what it waits for is done, it returns that result (not so since 3.12). The
wait for a store that does not answer then takes as long as the client's own timeout.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

__all__ = ["cancelled"]

# Long enough for a task to clean up after the cancellation that it has noticed.
AGAIN_AFTER_S: Final = 0.5


async def cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks, again and again, until all of them are done."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN_AFTER_S)
