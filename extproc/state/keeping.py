"""Which parts of the room are configured: learned state in a file, and in a store that routers share.

State is read from both at the start, saved and shared while requests are served, and saved at the end.
"""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.terms import Terms
from extproc.look_ups import run
from extproc.state.changing import Knowledge
from extproc.state.file import StateFile
from extproc.state.keeper import Ask, Current, KeeperListener, Saver
from extproc.state.settings import StateSettings, StoreSettings

if TYPE_CHECKING:
    from extproc.state.sharer import Sharer

__all__ = ["Keeping", "in_store_of"]


class Keeping:
    """Makes the saver and the sharer that are configured; by default neither.

    `begin` and `end` are called on the thread that owns the estimator, before and after serving. In between,
    `jobs` run on another thread and reach the estimator through `ask`.
    """

    def __init__(
        self, settings: StateSettings, terms: Terms, estimator: Current, ask: Ask, listener: KeeperListener
    ) -> None:
        self._estimator = estimator
        self._saver: Saver | None = None
        self._sharer = None if settings.store is None else _sharer(settings.store, terms, estimator, ask, listener)
        if settings.path:
            file = StateFile(Path(settings.path))
            self._saver = Saver(file, settings.every_s, estimator, ask, listener, terms=terms)

    @property
    def jobs(self) -> Sequence[Callable[[], Awaitable[None]]]:
        """The jobs to run while requests are served."""
        return [part.job for part in (self._saver, self._sharer) if part is not None]

    def begin(self) -> None:
        """Load learned state: from the file, and then from the other replicas if the store responds."""
        found = self._saver is not None and self._saver.load()
        if self._sharer is not None:
            if found:
                self._sharer.begin_with(self._estimator().state())
            self._sharer.first()

    def end(self) -> None:
        """Save and publish what was learned since the last time; called after the jobs have ended."""
        if self._saver is not None:
            self._saver.save(self._estimator().state())
        if self._sharer is not None:
            run(self._sharer.leave())


def in_store_of(state: StateSettings, estimator: EstimatorSettings) -> Knowledge | None:
    """Return the state in the store that routers with these settings share, or None if they have no store."""
    if state.store is None:
        return None
    from extproc.state.in_store import InStore  # noqa: PLC0415  (it imports the store's client)

    return InStore(state.store, estimator)


def _sharer(
    store: StoreSettings, terms: Terms, estimator: Current, ask: Ask, listener: KeeperListener
) -> "Sharer":
    from extproc.state.sharer import Sharer  # noqa: PLC0415  (it imports the store's client)

    return Sharer(store, terms, estimator, ask, listener)
