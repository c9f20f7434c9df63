"""How much of the router may go into learning: a token bucket of response messages.

Each kept stream costs one message per piece of response, for SSE about one per token: 60-85 us of Python
each, a hundred times the routing decision for a thousand tokens. So learning is sampled, and what is
sampled is paid for in messages, not in requests. How many they will be is not known when a stream is kept: the
most that they can be is paid at first, and what did not come is paid back. A young category is always learned
from; it overdraws the bucket, so that the others wait, but not without end: names of models and tenants are
clients', and new ones every day would keep every stream.
"""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

__all__ = ["LearningBudget", "LearningSettings"]

# Headers, one piece of body, and the end: what a JSON response costs.
JSON_MESSAGES = 3

Messages = Annotated[float, Meta(ge=0)]


@dataclass(frozen=True, slots=True)
class LearningSettings:
    """How much of the router goes into learning, in response messages: a streamed token is about one."""

    messages_per_s: Messages = 500.0
    """Response messages that are read a second, on average."""
    burst_messages: Messages = 5_000.0
    """Response messages that may be read at once; with 0 nothing is learned."""
    max_streams: Annotated[int, Meta(ge=1)] = 256
    """Streams that are kept open for their responses at once. They count against the gateway's limit of requests
    to the router, of which decisions need the rest."""


class LearningBudget:
    """A bucket that refills with time, and that young categories may overdraw by one burst.

    Beside it, no more streams than are allowed are open at once.
    """

    def __init__(self, settings: LearningSettings) -> None:
        self._per_s = settings.messages_per_s
        self._burst = settings.burst_messages
        self._left = settings.burst_messages
        self._max_streams = settings.max_streams
        self._streams = 0
        self._at_s: float | None = None

    def admit(self, messages: float, *, young: bool, now_s: float) -> bool:
        """Say whether a response of at most so many messages is learned from, and pay for it if so.

        No more than a burst is asked for: responses that declare a huge limit are learned from now and then.
        """
        if self._at_s is not None:
            self._left = min(self._burst, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        asked = min(messages, self._burst)
        if asked <= 0 or self._streams >= self._max_streams or self._left - asked < (-self._burst if young else 0):
            return False
        self._left -= asked
        self._streams += 1
        return True

    def pay_back(self, messages: float, used: float) -> None:
        """Settle a response that was admitted for `messages`, of which `used` came: the rest is paid back.

        Gateways may cut a response into more pieces than it has tokens; what came beyond is paid then, up to a
        debt of one burst.
        """
        self._streams -= 1
        self._left = max(self._left + min(messages, self._burst) - used, -self._burst)
