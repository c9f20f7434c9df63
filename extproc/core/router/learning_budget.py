"""How much work may go into learning: a token bucket of response messages.

Each kept stream costs one message per piece of response, for SSE about one per token: 60-85 us of Python
each, a hundred times the routing decision for a thousand tokens. So learning is sampled, and what is
sampled is paid for in messages, not in requests. How many they will be is not known when a stream is kept: what
they may be is reserved at first, and settled at the end.

Who comes while there is anything left is admitted, whatever the response may cost, and the next ones wait for as
long: if there had to be enough left for it, long responses would wait until nobody wants a short one. For the same
reason each stratum has a share (strata.py): the lower half of a burst is for those that had less than theirs.

A young category is always learned from; it overdraws the bucket, so that the others wait, but not without end:
names of models and tenants are clients', and new ones every day would keep every stream. Nor may anybody reserve
all of it: one stream reserves an eighth at most, whatever output it declares, and none is admitted for a key whose
open streams hold half. What has taught nothing yet is one key together, so that invented names share one half.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from extproc.core.router.strata import Shares
from extproc.core.router.unasked import UsageInStreams

__all__ = ["AccessLogSettings", "LearningBudget", "LearningSettings", "LearningSource"]

# Headers, one piece of body, and the end: what a JSON response costs.
JSON_MESSAGES = 3
# A small burst is not worth sharing: so much may be reserved in any case.
STREAM_SHARE, STREAM_MESSAGES = 1 / 8, 100
KEY_SHARE, KEY_MESSAGES = 1 / 2, 200
# Of the burst: what is left to those who had less than their share.
BEHIND_SHARE = 1 / 2

Messages = Annotated[float, Meta(ge=0)]


class LearningSource(StrEnum):
    """Where usage is read."""

    RESPONSE = "response"  # in responses that pass us
    ACCESS_LOG = "access_log"  # in the gateway's access log


@dataclass(frozen=True, slots=True)
class AccessLogSettings:
    """What comes from the gateway's gRPC access log, to `listen.address`, with `learning.source: access_log`."""

    key_file: str = ""
    """A file with the secret, of at least 32 bytes, by which the router distinguishes its own evidence in the
    log from forged entries: the same for all replicas, and for all workers of one. When empty, each process
    makes one at its start, and learns only from its own decisions."""
    max_age_s: Annotated[float, Meta(ge=1, le=7 * 86_400)] = 3_600.0
    """Entries of older decisions are not learned from; it has to be above the duration of the longest response."""
    max_cpu_share: Annotated[float, Meta(gt=0, le=1)] = 0.2
    """The largest share of the router's time that is spent on entries. Further entries wait in the gateway,
    which drops them when its buffers are full."""


@dataclass(frozen=True, slots=True)
class LearningSettings:
    """How much work goes into learning, in response messages: a streamed token is about one."""

    messages_per_s: Messages = 500.0
    """Response messages that are read per second, on average; divided among several workers."""
    burst_messages: Messages = 5_000.0
    """Response messages that may be read at once; with 0 nothing is learned. Divided among several workers."""
    max_streams: Annotated[int, Meta(ge=1)] = 24
    """Streams that each process keeps open for their responses at once. They count against the gateway's limit
    of concurrent requests to the router; decisions need the rest of it."""
    usage_in_streams: UsageInStreams = UsageInStreams.AUTO
    """Which streams are taken to report their usage: `asked`, those whose client asked for it; `always`, all;
    `auto`, those asked and all of a model that was seen to report unasked."""
    source: LearningSource = LearningSource.RESPONSE
    """`response` reads usage in the responses that the gateway sends to the router; `access_log` in its access
    log: then no response passes through the router, and every one is learned from. The settings of messages and
    streams then have no effect."""
    access_log: AccessLogSettings = field(default_factory=AccessLogSettings)


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
        self._most_for_stream = min(max(self._burst * STREAM_SHARE, STREAM_MESSAGES), self._burst)
        self._most_for_key = max(self._burst * KEY_SHARE, KEY_MESSAGES)
        self._reserved: dict[str, float] = {}
        self._shares = Shares()

    def admit(
        self, messages: float, *, key: str = "", stratum: Hashable = None, young: bool, now_s: float
    ) -> bool:
        """Say whether a response of at most so many messages is learned from, and reserve for it if so."""
        if self._at_s is not None:
            self._left = min(self._burst, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        asked, reserved = self._asked(messages), self._reserved.get(key, 0.0)
        is_behind = self._shares.is_behind(stratum, now_s)
        if asked <= 0 or self._streams >= self._max_streams or reserved >= self._most_for_key:
            return False
        kept_free = (-self._burst if young else 0.0) + (0.0 if is_behind else self._burst * BEHIND_SHARE)
        if self._left <= kept_free:
            return False
        self._left -= asked
        self._streams += 1
        self._reserved[key] = reserved + asked
        self._shares.spend(stratum, asked)
        return True

    def pay_back(self, messages: float, used: float, *, key: str = "", stratum: Hashable = None) -> None:
        """Settle a response that was admitted for `messages`, of which `used` came.

        What did not come is paid back. What came beyond the reserve, or in more pieces than there were tokens, is
        paid then, up to a debt of one burst.
        """
        self._streams -= 1
        asked = self._asked(messages)
        self._left = max(self._left + asked - used, -self._burst)
        self._shares.spend(stratum, used - asked)
        reserved = self._reserved.get(key, 0.0) - asked
        if reserved > 0:
            self._reserved[key] = reserved
        else:
            self._reserved.pop(key, None)

    def missed(self, stratum: Hashable) -> None:
        """Called when a bound of a stratum was missed: it is learned from before others."""
        self._shares.forget(stratum)

    def _asked(self, messages: float) -> float:
        return min(messages, self._most_for_stream)
