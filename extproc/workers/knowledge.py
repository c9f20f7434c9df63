"""What the workers of one router know, changed in each of them: without a store each has learned for itself."""

from collections.abc import Callable, Sequence

from extproc.core.estimator.protocol import LearnedState
from extproc.state.changing import NotDone
from extproc.state.snapshot import to_bytes
from extproc.workers.channel import ChannelClosed
from extproc.workers.slot import Slot

__all__ = ["WorkersKnowledge"]


class WorkersKnowledge:
    """The estimators of all workers. The first one tries: what it refuses, none is asked to take."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots

    def add(self, state: LearnedState) -> str:
        """Add a state in each worker."""
        data = to_bytes(state)
        return self._each(lambda slot: slot.add(data))

    def forget(self, model: str) -> str:
        """Forget all, or one model, in each worker."""
        return self._each(lambda slot: slot.forget(model))

    def undo(self, model: str) -> str:
        """Put a model's former prices back in each worker."""
        return self._each(lambda slot: slot.undo(model))

    def _each(self, change: Callable[[Slot], str]) -> str:
        said: dict[int, str] = {}
        for slot in self._slots:
            try:
                said[slot.number] = change(slot)
            except (ChannelClosed, TimeoutError):
                continue
        missing = [str(slot.number) for slot in self._slots if slot.number not in said]
        if missing:
            raise NotDone(
                f"worker {' and '.join(missing)} did not take it; the others did" if said else "no worker runs"
            )
        return "; ".join(f"worker {number}: {each}" for number, each in said.items())
