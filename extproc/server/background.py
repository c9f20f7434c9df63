"""Background jobs that talk to other servers, on one asyncio loop on its own thread.

The thread that makes decisions must never wait for a network. A job's result reaches it as one frozen value that
is swapped by reference, or through `Loop.post`.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from extproc.cancelling import cancelled
from extproc.look_ups import LookingUp

__all__ = ["Background", "Job"]

# A failed job is restarted after this long: it must not spin, and nothing waits for it.
AGAIN_AFTER_S: Final = 1.0

Job = Callable[[], Awaitable[None]]
"""Runs until it is cancelled, and then cleans up after itself."""

log = logging.getLogger("dualpool")


class Background:
    """Runs jobs from `start` until `stop` has ended them, which `stopped` tells.

    An exception in a job is logged and passed to `failed`, on the thread of the jobs; then the job is restarted.
    """

    def __init__(self, jobs: Sequence[Job], failed: Callable[[Exception], None]) -> None:
        self._jobs = tuple(jobs)
        self._failed = failed
        self._runner = asyncio.Runner(loop_factory=LookingUp)
        self._ending = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="dualpool-background", daemon=True)

    def start(self) -> None:
        """Start all jobs; without jobs there is no thread."""
        if self._jobs:
            self._runner.get_loop()  # made here, so that `stop` can use it even before the thread runs
            self._thread.start()

    def stop(self) -> None:
        """Have all jobs cancelled, which then clean up."""
        if self._thread.is_alive():
            self._runner.get_loop().call_soon_threadsafe(self._ending.set)

    @property
    def stopped(self) -> bool:
        """Whether all jobs have ended."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        with self._runner:
            self._runner.run(self._run_until_cancelled())

    async def _run_until_cancelled(self) -> None:
        tasks = [asyncio.create_task(self._run_forever(job)) for job in self._jobs]
        await self._ending.wait()
        await cancelled(tasks)

    async def _run_forever(self, job: Job) -> None:
        while True:
            try:
                await job()
            except Exception as error:
                log.exception("a background job failed and is restarted", extra={"fields": {"job": repr(job)}})
                self._failed(error)
            await asyncio.sleep(AGAIN_AFTER_S)
