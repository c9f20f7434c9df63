"""A decision whose stream stays open, so that its response is read and learned from."""

from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.facts import ResponseHead
from extproc.core.placing.decision import Decision
from extproc.core.reading.reader import UsageReader
from extproc.core.router.learner import Learner

__all__ = ["Kept"]


class Kept:
    """One kept decision; `messages` counts its response messages, `reader` reads their bodies.

    `complete` is set when the response is complete; it is learned from at the end of the exchange, when the
    gateway has its last reply.
    """

    __slots__ = ("_decision", "_head", "_learner", "complete", "messages", "reader")

    def __init__(self, learner: Learner, decision: Decision) -> None:
        self.messages = 0
        self.reader: UsageReader
        self.complete = False
        self._learner = learner
        self._decision = decision
        self._head = ResponseHead(0)

    def opens(self, head: ResponseHead) -> bool:
        """Process the response's head; return whether its body is worth reading."""
        reader = self._learner.reader(self._decision, head)
        if reader is None:
            return False
        self._head, self.reader = head, reader
        return True

    def not_learned(self, fault: ResponseFault) -> None:
        """Count a response from which nothing was learned."""
        self._learner.not_learned(self._decision, fault)

    def end(self, *, cut_short: bool) -> None:
        """Learn from the response if it is complete, and charge for the messages; called when the stream is over.

        `cut_short`: the stream ended before the response did.
        """
        try:
            if self.complete:
                self._learner.learn(self._decision, self._head, self.reader.finish())
            elif cut_short:
                self.not_learned(ResponseFault.CUT_SHORT)
        except ResponseNotUnderstood as error:
            self.not_learned(error.fault)
        finally:
            self._learner.settle(self._decision, self.messages)
