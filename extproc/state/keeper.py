"""The job that saves what was learned, periodically and at the end."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from extproc.core.estimator.protocol import Estimator, LearnedState
from extproc.core.estimator.state_tables import tables_of
from extproc.core.estimator.terms import Terms
from extproc.state.file import StateFile

__all__ = ["Ask", "Current", "FailureLog", "KeeperListener", "Saver", "copied"]

log = logging.getLogger("dualpool")

Ask = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a function on the deciding thread and returns its result."""
Current = Callable[[], Estimator]
"""Returns the estimator in force, which a reload may replace."""


async def copied(estimator: Current, ask: Ask) -> LearnedState:
    """Return a state whose parts were copied one at a time: requests are decided in between."""
    return LearnedState.joined([await ask(make) for make in await ask(lambda: estimator().parts())])


class KeeperListener(Protocol):
    """A listener to the outcomes of saving and sharing, such as the metrics."""

    def state_saved(self, *, done: bool) -> None:
        """Called after each attempt to save."""
        ...

    def state_exchanged(self, *, done: bool, replicas: int) -> None:
        """Called after each attempt to share, with the number of other replicas whose knowledge is in use."""
        ...


class FailureLog:
    """Logs when something starts failing and when it works again, but not each failure in between.

    `fields` are added to both lines: which file or store it is, which not every error says.
    """

    def __init__(self, failing: str, recovered: str, **fields: str) -> None:
        self._failing_message, self._recovered_message = failing, recovered
        self._fields = fields
        self._failing = False

    def failed(self, error: Exception) -> None:
        """Called for each failure."""
        if not self._failing:
            fields = self._fields | {"cause": f"{type(error).__name__}: {error}"}
            log.warning(self._failing_message, extra={"fields": fields})
        self._failing = True

    def succeeded(self) -> None:
        """Called for each success."""
        if self._failing:
            log.info(self._recovered_message, extra={"fields": self._fields})
        self._failing = False


class Saver:
    """Saves the estimator's state to a file every `every_s` seconds; a failed save is retried the next time."""

    def __init__(
        self,
        file: StateFile,
        every_s: float,
        estimator: Current,
        ask: Ask,
        listener: KeeperListener,
        *,
        terms: Terms,
    ) -> None:
        self._file = file
        self._terms = terms
        self._every_s = every_s
        self._estimator = estimator
        self._ask = ask
        self._listener = listener
        self._failures = FailureLog(
            "learned state cannot be saved", "learned state is saved again", path=str(file.path)
        )
        self._saved: LearnedState | None = None
        self._saving = threading.Lock()

    def load(self) -> bool:
        """Load the file before anything is served; return whether it held a state."""
        return self._file.load(self._take)

    def _take(self, state: LearnedState) -> None:
        tables_of(state, self._terms)  # raises for numbers that could never be merged with those of others
        self._estimator().load(state)

    async def job(self) -> None:
        """Save until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            state = await copied(self._estimator, self._ask)
            await asyncio.to_thread(self.save, state)

    def save(self, state: LearnedState) -> None:
        """Save once; called by the job, and at the end on the thread that owned the estimator, even if the job is
        still saving to a slow disk.
        """
        with self._saving:
            self._save(state)

    def _save(self, state: LearnedState) -> None:
        if state == self._saved:
            return
        try:
            self._file.save(state)
        except OSError as error:
            self._failures.failed(error)
            self._listener.state_saved(done=False)
        else:
            self._saved = state
            self._failures.succeeded()
            self._listener.state_saved(done=True)
