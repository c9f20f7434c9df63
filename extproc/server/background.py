"""What talks to other servers while requests pass: jobs on an asyncio loop, on a thread of its own.

The thread that decides must never wait for a network. What a job finds out reaches it as one frozen value that is
swapped by reference, or by `Loop.tell`.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from extproc.look_ups import LookingUp

__all__ = ["Background", "Job"]

# A job that failed is begun again after this long: it must not spin, and nobody waits for it.
AGAIN_AFTER_S: Final = 1.0
STOPS_WITHIN_S: Final = 5.0

Job = Callable[[], Awaitable[None]]
"""Runs until it is cancelled, and cleans up after itself then."""

log = logging.getLogger("dualpool")


class Background:
    """Runs jobs from `start` to `stop`; one that raises is logged, and begun again."""

    def __init__(self, jobs: Sequence[Job], again_after_s: float = AGAIN_AFTER_S) -> None:
        self._jobs = tuple(jobs)
        self._again_after_s = again_after_s
        self._runner = asyncio.Runner(loop_factory=LookingUp)
        self._ending = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="dualpool-background", daemon=True)

    def start(self) -> None:
        """Begin all jobs; without jobs there is no thread."""
        if self._jobs:
            self._runner.get_loop()  # made here, so that `stop` finds it whatever the thread has come to
            self._thread.start()

    def stop(self) -> None:
        """Cancel all jobs and wait a while for them to clean up."""
        if self._thread.is_alive():
            self._runner.get_loop().call_soon_threadsafe(self._ending.set)
            self._thread.join(STOPS_WITHIN_S)

    def _run(self) -> None:
        with self._runner:
            self._runner.run(self._until_the_end())

    async def _until_the_end(self) -> None:
        tasks = [asyncio.create_task(self._again_and_again(job)) for job in self._jobs]
        await self._ending.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _again_and_again(self, job: Job) -> None:
        while True:
            try:
                await job()
            except Exception:
                log.exception("a background job failed and is restarted", extra={"fields": {"job": repr(job)}})
            await asyncio.sleep(self._again_after_s)
