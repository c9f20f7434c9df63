"""Changing what routers know at an operator's word: a state is added to it; all of it, or one model, is forgotten.

Where replicas share, it is the store that is changed, and each takes it from there (in_store.py): what one of them
alone forgot would come back from the others. Else it is the estimator of each process.
"""

from typing import Final, Protocol

from extproc.core.errors import DualpoolError
from extproc.core.estimator.protocol import LearnedState
from extproc.core.estimator.settings import EstimatorSettings
from extproc.state.settings import StateSettings

__all__ = ["MAX_STATE_BYTES", "Knowledge", "NotDone", "Undoing", "in_store_of"]

# A router of 500 models and 4,000 tenants comes to about 45 MB.
MAX_STATE_BYTES: Final = 64 << 20


class NotDone(DualpoolError):
    """Nothing is wrong with what was asked, but who has to do it does not: the store, a worker, a busy loop."""


class Knowledge(Protocol):
    """What can be changed. Both return a sentence for people, about what came of it.

    Raise ConfigurationError for what cannot be, with nothing changed, and NotDone.
    """

    def add(self, state: LearnedState) -> str:
        """Add what another router has learned."""
        ...

    def forget(self, model: str) -> str:
        """Forget all, or one model if it is named."""
        ...


class Undoing(Protocol):
    """What can put back former prices: processes alone, as what was put aside is not shared."""

    def undo(self, model: str) -> str:
        """Put a model's former prices back; return a sentence for people. Raises NotDone."""
        ...


def in_store_of(state: StateSettings, estimator: EstimatorSettings) -> Knowledge | None:
    """Return what is in the store that routers with these settings share, where there is one."""
    if state.store is None:
        return None
    from extproc.state.in_store import InStore  # noqa: PLC0415  (a client that others do not need)

    return InStore(state.store, estimator)
