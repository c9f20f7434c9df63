"""The budget for learning: a token bucket of response messages.

Each kept stream costs one message per chunk of the response, for SSE about one per token: 60-85 us each, for a
thousand tokens a hundred times the routing decision. So learning is sampled, and the cost is counted in messages,
not in requests. That is as good as counting CPU time, because nearly all of a message's is the transport's,
whatever it holds: of an event's 60 us 3 are ours, and a JSON response of 64 KB takes 40 us longer than one of 1 KB
(`python -m bench --only inside`). Measured time was rejected: it needs two clock readings per message, and other
load on the machine would decide how much is learned. The number of messages is not known when a stream is kept:
the expected number is reserved then, and settled at the end.

A stream is admitted while anything is left in the bucket, whatever its response may cost; later streams wait until
the debt is paid. If the bucket had to hold the full cost, long responses would wait until there is no demand for
short ones. For the same reason each stratum has a share (strata.py): the lower half of the bucket is reserved for
strata that had less than their share.

Young categories may overdraw the bucket, which makes the others wait, but only by one burst: model and tenant
names come from clients, and new names would otherwise keep every stream open. No stream or key may reserve the
whole bucket: one stream reserves at most an eighth, whatever output it declares, and none is admitted for a key
whose open streams hold half. Models from which nothing has been learned yet share one key, so that invented names
share one half.

A stream also takes one of `max_streams` slots until its response ends, which a slow client can delay at no cost in
messages. So the streams of one key and stratum get another slot only while they hold fewer than are free (dynamic
thresholds: Choudhury and Hahne, 1998). They hold at most half of the slots, and leave some to any other key or
stratum; five that are slow at once can hold all 24. Streams are not ended early to free their slots: the responses
that would be lost are the long ones.
"""

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from extproc.core.router.strata import Shares
from extproc.core.router.unasked import UsageInStreams

__all__ = ["AccessLogSettings", "LearningBudget", "LearningSettings", "LearningSource"]

# The messages of a JSON response are at most these, if it comes in one chunk: headers, the chunk, and the end.
JSON_MESSAGES = 3
# The largest reserve per stream and per key: this share of the burst, or this many messages if that is more, since
# a small burst is not worth sharing.
STREAM_SHARE, STREAM_MESSAGES = 1 / 8, 100
KEY_SHARE, KEY_MESSAGES = 1 / 2, 200
# The part of the burst that is reserved for strata that had less than their share.
BEHIND_SHARE = 1 / 2

Messages = Annotated[float, Meta(ge=0)]


class LearningSource(StrEnum):
    """Where usage is read from."""

    RESPONSE = "response"  # from the responses that the gateway sends to the router
    ACCESS_LOG = "access_log"  # from the gateway's access log


@dataclass(frozen=True, slots=True)
class AccessLogSettings:
    """The gateway's gRPC access log, sent to `listen.address`, as a source of learning (`source: access_log`)."""

    key_file: str = ""
    """A file with the secret, of at least 32 bytes, by which the router distinguishes its own evidence in the
    log from forged entries: the same for all replicas and all their workers. If empty, each process generates one
    when it starts, and learns only from its own decisions. The file is read every second: a new key is used for
    further decisions, and the one before it is accepted for another `max_age_s`."""
    max_age_s: Annotated[float, Meta(ge=1, le=7 * 86_400)] = 3_600.0
    """Entries of older decisions are not learned from; it must be above the duration of the longest response."""
    max_cpu_share: Annotated[float, Meta(gt=0, le=1)] = 0.2
    """The largest share of the router's time that is spent on entries. Further entries wait in the gateway,
    which drops them when its buffers are full."""


@dataclass(frozen=True, slots=True)
class LearningSettings:
    """The work that goes into learning, in response messages: a streamed token is about one."""

    messages_per_s: Messages = 500.0
    """Response messages that are read per second, on average; divided among several workers."""
    burst_messages: Messages = 5_000.0
    """Response messages that may be read at once; with 0 nothing is learned. Divided among several workers."""
    max_streams: Annotated[int, Meta(ge=1)] = 24
    """Streams that each process keeps open at once for their responses; those of one model and stratum get at most
    half. They count against the gateway's limit on concurrent requests to the router; decisions need the rest of
    it."""
    usage_in_streams: UsageInStreams = UsageInStreams.AUTO
    """Which streams are expected to report usage: `asked`, those whose client asked for it; `always`, all;
    `auto`, those whose client asked, and all of a model that was seen to report usage unasked."""
    source: LearningSource = LearningSource.RESPONSE
    """`response` reads usage from the responses that the gateway sends to the router; `access_log` reads it from
    the gateway's access log: then no response passes through the router, all are learned from, and the settings of
    messages and streams have no effect."""
    access_log: AccessLogSettings = field(default_factory=AccessLogSettings)


class LearningBudget:
    """A bucket that refills with time, and that young categories may overdraw by one burst.

    It also limits the number of streams that are open at once.
    """

    def __init__(self, settings: LearningSettings) -> None:
        self._per_s = settings.messages_per_s
        self._burst = settings.burst_messages
        self._left = settings.burst_messages
        self._max_streams = settings.max_streams
        self._open: defaultdict[tuple[str, Hashable], int] = defaultdict(int)  # a Counter's items are slow to set
        self._at_s: float | None = None
        self._most_for_stream = min(max(self._burst * STREAM_SHARE, STREAM_MESSAGES), self._burst)
        self._most_for_key = max(self._burst * KEY_SHARE, KEY_MESSAGES)
        self._reserved: dict[str, float] = {}
        self._shares = Shares()

    def admit(
        self, messages: float, *, key: str = "", stratum: Hashable = None, young: bool, now_s: float
    ) -> bool:
        """Return whether to learn from a response of about `messages` messages; if so, reserve them."""
        if self._at_s is not None:
            left = self._left + (now_s - self._at_s) * self._per_s
            self._left = left if left < self._burst else self._burst
        self._at_s = now_s
        asked, reserved = self._asked(messages), self._reserved.get(key, 0.0)
        is_behind = self._shares.is_behind(stratum, now_s)
        if asked <= 0 or not self.has_slot(key, stratum) or reserved >= self._most_for_key:
            return False
        kept_free = (-self._burst if young else 0.0) + (0.0 if is_behind else self._burst * BEHIND_SHARE)
        if self._left <= kept_free:
            return False
        self._left -= asked
        self._open[key, stratum] += 1
        self._reserved[key] = reserved + asked
        self._shares.spend(stratum, asked)
        return True

    def has_slot(self, key: str, stratum: Hashable) -> bool:
        """Return whether a key and stratum may have another stream: if they hold fewer slots than are free."""
        return self._open.get((key, stratum), 0) < self._max_streams - sum(self._open.values())

    def pay_back(self, messages: float, used: float, *, key: str = "", stratum: Hashable = None) -> None:
        """Settle a response that was admitted for `messages` and took `used`.

        The unused part of the reserve is returned. Messages beyond the reserve (a longer response, or more chunks
        than tokens) are charged now, up to a debt of one burst.
        """
        self._open[key, stratum] -= 1
        if self._open[key, stratum] <= 0:
            del self._open[key, stratum]
        asked = self._asked(messages)
        left = self._left + asked - used
        self._left = left if left > -self._burst else -self._burst
        self._shares.spend(stratum, used - asked)
        reserved = self._reserved.get(key, 0.0) - asked
        if reserved > 0:
            self._reserved[key] = reserved
        else:
            self._reserved.pop(key, None)

    def missed(self, stratum: Hashable) -> None:
        """Called when a bound of a stratum was missed: the stratum then has priority in learning."""
        self._shares.forget(stratum)

    def _asked(self, messages: float) -> float:
        return messages if messages < self._most_for_stream else self._most_for_stream
