"""Label values: closed sets of our own, and a bounded number of values that come from clients.

After the first few values of clients, all others are `other`. So that invented names do not use up the places, a
value is admitted only by something that clients cannot fake: for models, a response from the model.
"""

from bisect import bisect_left
from enum import StrEnum
from typing import Final

__all__ = [
    "OTHER",
    "Attempt",
    "BoundedLabels",
    "CountOutcome",
    "FollowedFiles",
    "PromptSize",
    "Undecided",
    "Verdict",
]

OTHER = "other"
SIZE_EDGES = (256, 1024, 4096, 16384)


class BoundedLabels:
    """Admits the first `max_values` distinct values; all later ones are `other`.

    `known` maps each admitted value, and "", to itself, for a quick lookup at each request.
    """

    def __init__(self, max_values: int) -> None:
        self._places = max_values
        self.known = {"": ""}

    def label(self, value: str) -> str:
        """Return the value, which is admitted if there is a place; otherwise `other`."""
        if value not in self.known:
            if not self._places:
                return OTHER
            self._places -= 1
            self.known[value] = value
        return value


class Undecided(StrEnum):
    """Why a stream ended before its request was decided or given up."""

    GATEWAY_LEFT = "gateway_left"  # usually because the client did
    IDLE = "idle"
    NOT_UNDERSTOOD = "not_understood"  # the first message
    ENDED_BY_US = "ended_by_us"  # a drain


class FollowedFiles(StrEnum):
    """The setting that names files which are followed, so that they can be renewed without a reload."""

    TLS = "listen.tls"
    LOG_KEY = "learning.access_log.key_file"


class PromptSize(StrEnum):
    """How long a prompt was, in tokens; few sizes, so that each has enough prompts to judge bounds by."""

    UP_TO_256 = "to_256"
    UP_TO_1K = "to_1k"
    UP_TO_4K = "to_4k"
    UP_TO_16K = "to_16k"
    ABOVE_16K = "above_16k"

    @classmethod
    def of(cls, prompt_tokens: int) -> "PromptSize":
        """Return the size of a prompt with `prompt_tokens` tokens."""
        return _SIZES[bisect_left(SIZE_EDGES, prompt_tokens)]


_SIZES: Final = tuple(PromptSize)


class Verdict(StrEnum):
    """Whether a prompt was within its upper bound."""

    HELD = "held"
    EXCEEDED = "exceeded"


class CountOutcome(StrEnum):
    """The outcome of counting a request's text exactly."""

    DONE = "done"
    GIVEN_UP = "given_up"  # it took too long: the estimate is used


class Attempt(StrEnum):
    """The outcome of an attempt to save or to share what was learned."""

    DONE = "done"
    FAILED = "failed"
