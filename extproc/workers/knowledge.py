"""Changes to what a router has learned, made in each worker: without a shared store each learns separately."""

from collections.abc import Sequence

from extproc.core.estimator.protocol import LearnedState
from extproc.state.changing import NotDone
from extproc.state.snapshot import to_bytes
from extproc.workers.channel import ChannelClosed, Question
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
        return self._each(Question.ADD, to_bytes(state))

    def forget(self, model: str) -> str:
        """Forget one model, or everything if `model` is empty, in each worker."""
        return self._each(Question.FORGET, model.encode())

    def undo(self, model: str) -> str:
        """Restore a model's previous prices in each worker."""
        return self._each(Question.UNDO, model.encode())

    def _each(self, question: Question, content: bytes) -> str:
        answers: dict[int, str] = {}
        for slot in self._slots:
            try:
                answers[slot.number] = slot.change(question, content)
            except (ChannelClosed, TimeoutError):
                continue
        missing = [str(slot.number) for slot in self._slots if slot.number not in answers]
        if missing:
            raise NotDone(
                f"worker {' and '.join(missing)} did not apply it; the others did" if answers else "no worker runs"
            )
        return "; ".join(f"worker {number}: {each}" for number, each in answers.items())
