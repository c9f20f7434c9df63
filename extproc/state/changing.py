"""Changes to learned state by an operator: a state is added; one model, or everything, is forgotten.

If replicas share a store, the store is changed, and each replica takes the change from there (in_store.py): what a
single replica forgot would come back from the others. Otherwise the estimator of each process is changed.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from extproc.core.errors import DualpoolError
from extproc.core.estimator.protocol import LearnedState

__all__ = ["MAX_STATE_BYTES", "Knowledge", "NotDone", "Undoing", "left_out", "unknown"]

# A router of 500 models and 4,000 tenants comes to about 45 MB.
MAX_STATE_BYTES: Final = 64 << 20
NAMED: Final = 5


class NotDone(DualpoolError):
    """A valid request could not be carried out: the store, a worker or a busy loop did not respond."""


class Knowledge(Protocol):
    """Learned state that can be changed. Both methods return a sentence about the result, for people.

    They raise ConfigurationError for an invalid request, with nothing changed, and NotDone.
    """

    def add(self, state: LearnedState) -> str:
        """Add what another router has learned."""
        ...

    def forget(self, model: str) -> str:
        """Forget everything, or one model if it is named."""
        ...


class Undoing(Protocol):
    """Restores previous prices; only processes can, because previous prices are not shared."""

    def undo(self, model: str) -> str:
        """Restore a model's previous prices; return a sentence for people. Raises NotDone."""
        ...


def left_out(models: Sequence[str]) -> str:
    """Return which models of an added state were left out, for people."""
    named = ", ".join(repr(name) for name in models[:NAMED]) + (" and others" if len(models) > NAMED else "")
    return f"left out {named}: a different generation than here, or no room (reset the model first)"


def unknown(model: str) -> str:
    """Return that a model cannot be forgotten, for people: its name may be misspelled."""
    return f"nothing was learned about model {model!r}"
