"""Label values: closed sets of our own, and those that come from clients, bounded in number.

Of a client's what is beyond the first few is `other`. So that invented names do not take the places for good, a
value is only let in by something that clients cannot make up: for models, a response of the model.
"""

from bisect import bisect_left
from enum import StrEnum

__all__ = ["OTHER", "BoundedLabels", "CountOutcome", "PromptSize", "Undecided", "Verdict"]

OTHER = "other"
SIZE_EDGES = (256, 1024, 4096, 16384)


class BoundedLabels:
    """Lets the first `max_values` distinct values through; all later ones are `other`.

    `known` has those that were let in, and nothing, each under itself: for who asks at each request.
    """

    def __init__(self, max_values: int) -> None:
        self._places = max_values
        self.known = {"": ""}

    def label(self, value: str) -> str:
        """Return the value, which is let in if there is a place; else `other`."""
        if value not in self.known:
            if not self._places:
                return OTHER
            self._places -= 1
            self.known[value] = value
        return value


class Undecided(StrEnum):
    """Why a stream ended before its request was decided or given up."""

    GATEWAY_LEFT = "gateway_left"  # the client did, as a rule
    IDLE = "idle"
    NOT_UNDERSTOOD = "not_understood"  # the first message
    ENDED_BY_US = "ended_by_us"  # a drain


class PromptSize(StrEnum):
    """How long a prompt was, in tokens; few enough that an under-count's share has a meaning in each."""

    UP_TO_256 = "to_256"
    UP_TO_1K = "to_1k"
    UP_TO_4K = "to_4k"
    UP_TO_16K = "to_16k"
    ABOVE_16K = "above_16k"

    @classmethod
    def of(cls, prompt_tokens: int) -> "PromptSize":
        """Return the size that a prompt of so many tokens has."""
        sizes = tuple(cls)
        return sizes[bisect_left(SIZE_EDGES, prompt_tokens)]


class Verdict(StrEnum):
    """Whether a prompt was within its upper bound."""

    HELD = "held"
    EXCEEDED = "exceeded"


class CountOutcome(StrEnum):
    """What came of counting a request's text exactly."""

    DONE = "done"
    GIVEN_UP = "given_up"  # for the time that it takes: the estimate stands
