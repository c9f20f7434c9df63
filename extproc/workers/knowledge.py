"""Changes to what a router has learned, made in each worker: without a shared store each learns separately."""

from collections.abc import Callable, Sequence

from extproc.core.estimator.protocol import LearnedState
from extproc.state.changing import NotDone
from extproc.state.snapshot import to_bytes
from extproc.workers.channel import ChannelClosed
from extproc.workers.slot import Slot

__all__ = ["WorkersKnowledge"]


class WorkersKnowledge:
    """The estimators of all workers. A change goes to the first worker first; if that one refuses it, no other
    worker gets it.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots

    def add(self, state: LearnedState) -> str:
        """Add learned state to that of each worker."""
        data = to_bytes(state)
        return self._each(lambda slot: slot.add(data))

    def forget(self, model: str) -> str:
        """Forget one model, or everything if `model` is empty, in each worker."""
        return self._each(lambda slot: slot.forget(model))

    def undo(self, model: str) -> str:
        """Restore a model's previous prices in each worker."""
        return self._each(lambda slot: slot.undo(model))

    def _each(self, change: Callable[[Slot], str]) -> str:
        answers: dict[int, str] = {}
        for slot in self._slots:
            try:
                answers[slot.number] = change(slot)
            except (ChannelClosed, TimeoutError):
                continue
        missing = [str(slot.number) for slot in self._slots if slot.number not in answers]
        if missing:
            raise NotDone(
                f"worker {' and '.join(missing)} did not apply it; the others did" if answers else "no worker runs"
            )
        return "; ".join(f"worker {number}: {each}" for number, each in answers.items())
