"""Spillover: which requests leave an overloaded pool, and for which other pool (paper, dispatch steps 4-5).

The idea. A pool's pressure is the higher of two gauges, 1 at its limit and 2 when all requests should leave:
waiting requests per server relative to the configured limit; and KV cache in use. The share that leaves rises
linearly with the pressure, like the marking probability of RED with the length of a queue (Floyd and Jacobson,
1993). It starts when the pressure exceeds the limit, ends when it is below `release` of it (hysteresis), and takes
at least `ramp_s` to change from none to all. Without a queue it ends earlier: a KV cache in use is no overload,
however full, if the requests that leave would find room in it. A queue already integrates the overload, so a share
proportional to it settles; integrating it once more (integral control, tried first) oscillates. The paper moves
everything above a threshold, which oscillates with the delay of the measurement.

Between two measurements a router's own decisions are the freshest information: the requests that it has placed in
a pool since, beyond the number that the pool absorbed before without a queue, are waiting there, and their tokens
fill the KV cache. Requests enter another pool only while its pressure, with these included, is below the limit and
below that of the pool that they leave; the fuller it is, the fewer enter. So no pool gets more than it has room
for, however overloaded its neighbour is.

A hash of a conversation's beginning decides whether its requests leave, so that all of them leave at the same
share. A conversation that has left stays with its prefix cache until the overload has ended or the other pool is
full.

Rejected: equalising both queues, which needs the service rates of both pools for the lengths that are moved; a
random choice per request, which loses prefix caches at every turn.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated, Final

from msgspec import Meta

from extproc.core.estimator.categories import CappedMap
from extproc.core.facts import RequestFacts
from extproc.core.placing.budget import TokenBudget
from extproc.core.placing.fleet import Busy, Fleet, PoolLoad
from extproc.core.placing.pool import Pool

__all__ = ["Placed", "SpillSettings", "Spilling", "Spillover", "pressure"]

ALL_LEAVE: Final = 2.0
# The part of a conversation's first question that is hashed; conversations that begin alike are moved together.
OPENING_CHARS: Final = 1024
MAX_CONVERSATIONS: Final = 16_384
GOLDEN: Final = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio; its multiples are evenly distributed
POINTS: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class SpillSettings:
    """When requests leave an overloaded pool for one that serves their model and has room; needs `endpoints`."""

    enabled: bool = False
    """Whether requests leave overloaded pools."""
    waiting_per_endpoint: Annotated[float, Meta(gt=0)] = 8.0
    """Waiting requests per server at which a pool is at its limit; at twice as many, all requests leave."""
    kv_usage: Annotated[float, Meta(gt=0, lt=1)] = 0.95
    """The share of the KV cache in use at which a pool is at its limit."""
    release: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    """The share of the limits below which an overload has ended. Without a queue it has also ended when the KV
    cache would be below its limit with the requests that leave."""
    ramp_s: Annotated[float, Meta(gt=0, le=600)] = 2.0
    """The shortest time in which the share that leaves goes from none to all, or back."""


def pressure(load: PoolLoad, settings: SpillSettings, requests: int = 0, tokens: int = 0) -> float:
    """Return how full a pool is, 1 at its limit; `requests` and `tokens` were placed since the measurement."""
    return max(_gauges(load, settings, requests, tokens))


def _gauges(load: PoolLoad, settings: SpillSettings, requests: int, tokens: int) -> tuple[float, float]:
    """Return the queue and the KV cache in use, each 1 at its limit and 2 when all requests should leave."""
    busy = load.busy
    waiting = busy.waiting + max(requests - load.absorbs, 0)
    kv_usage = busy.kv_usage + (tokens / busy.kv_tokens if busy.kv_tokens else 0.0)
    limit = settings.kv_usage
    by_kv = kv_usage / limit if kv_usage <= limit else 1 + (kv_usage - limit) / (1 - limit)
    return waiting / busy.endpoints / settings.waiting_per_endpoint, by_kv


class Spilling:
    """Tracks one pool from measurement to measurement, and computes the share of its requests that leaves."""

    def __init__(self, settings: SpillSettings) -> None:
        self._settings = settings
        self._overloaded = False
        self._episode = 0
        self._last: PoolLoad | None = None

    def observe(self, busy: Busy, placed: tuple[int, int], elapsed_s: float) -> PoolLoad:
        """Process a measurement and return the pool's load.

        `placed` are the totals of requests and tokens placed there before the measurement; `elapsed_s` is the time
        since the previous one.
        """
        last, (requests, tokens) = self._last, placed
        absorbed = 0
        if last is not None:
            queued = max(busy.waiting - last.busy.waiting, 0)
            absorbed = max(requests - last.requests - queued, 0)
        free = 0 if busy.waiting else busy.running  # without a queue, as many again find a slot at once or soon
        asked = PoolLoad(busy, requests, tokens, absorbed + free)
        share = self._next_share(*_gauges(asked, self._settings, 0, 0), last.share if last else 0.0, elapsed_s)
        self._last = PoolLoad(busy, requests, tokens, asked.absorbs, share, self._episode)
        return self._last

    def lose(self) -> None:
        """Called when the pool's load is no longer known: nothing leaves it from then on."""
        self._overloaded, self._last = False, None

    def _next_share(self, by_queue: float, by_kv: float, share: float, elapsed_s: float) -> float:
        settings, pressed = self._settings, max(by_queue, by_kv)
        if pressed > 1 and not self._overloaded:
            self._overloaded = True
            self._episode += share == 0
        # The KV cache in use is proportional to the requests: below 1 - share of its limit, all of them would fit.
        elif by_queue < settings.release and by_kv < max(settings.release, 1 - share):
            self._overloaded = False
        if not settings.enabled:
            return 0.0
        wanted = min((pressed - settings.release) / (ALL_LEAVE - settings.release), 1.0) if self._overloaded else 0
        step = max(elapsed_s, 0.0) / settings.ramp_s
        return min(max(wanted, share - step), share + step)


@dataclass(slots=True)
class Placed:
    """Requests and likeliest tokens that were placed in one pool since the start."""

    requests: int = 0
    tokens: int = 0


class Spillover:
    """Moves requests out of overloaded pools. Owned by one event loop; others may call `placed`.

    `salt` (up to 64 bytes) keys the hash of conversations; routers with the same salt move the same conversations.
    """

    def __init__(self, settings: SpillSettings, salt: bytes) -> None:
        self.settings = settings
        self._salt = salt
        self._placed: dict[str, Placed] = {}
        # Per home pool and conversation: the home's episode in which it left, and the pool it went to.
        self._moved: CappedMap[tuple[str, int], tuple[int, str]] = CappedMap(MAX_CONVERSATIONS, lambda _: (0, ""))
        self._without_text = 0

    def under(self, settings: SpillSettings, salt: bytes) -> "Spillover":
        """Return a Spillover with these settings and salt; it continues to count the requests placed."""
        if (settings, salt) == (self.settings, self._salt):
            return self
        after = Spillover(settings, salt)
        after._placed = self._placed
        return after

    def placed(self, pool: str) -> tuple[int, int]:
        """Return the requests and tokens that were placed in a pool since the start."""
        placed = self._placed.get(pool)
        return (0, 0) if placed is None else (placed.requests, placed.tokens)

    def count(self, pool: str, tokens: int) -> None:
        """Record that a request with this likeliest number of tokens was placed in a pool."""
        placed = self._placed.setdefault(pool, Placed())
        placed.requests += 1
        placed.tokens += tokens

    def move(self, facts: RequestFacts, tenant: str, budget: TokenBudget, home: Pool, fleet: Fleet) -> Pool:
        """Return the pool for a request that belongs in `home`: another one if it should spill over."""
        load = fleet.loads.get(home.name)
        if load is None or load.share <= 0:
            return home
        point = self._point(facts, tenant)
        episode, moved_to = self._moved.get((home.name, point)) or (0, "")
        pressed = self._pressure(home, load)
        for rung in fleet.serving.ladder(facts.model).others(home):
            pool, target = rung.pool, fleet.loads.get(rung.pool.name)
            if target is None or budget.bound > rung.context_tokens:
                continue
            theirs = self._pressure(pool, target)
            stays = moved_to == pool.name and episode == load.episode
            if theirs >= (1.0 if stays else min(pressed, 1.0)):
                continue
            if stays or point < load.share * self._room(theirs) * POINTS:
                self._moved.put((home.name, point), (load.episode, pool.name))
                return pool
        return home

    def _pressure(self, pool: Pool, load: PoolLoad) -> float:
        requests, tokens = self.placed(pool.name)
        return pressure(load, self.settings, requests - load.requests, tokens - load.tokens)

    def _room(self, pressed: float) -> float:
        """Return the fraction of the leaving share that a pool accepts: 1 below `release`, 0 at its limit."""
        return min((1 - pressed) / (1 - self.settings.release), 1.0)

    def _point(self, facts: RequestFacts, tenant: str) -> int:
        """Return a number below 2^64 that is the same for all requests of a conversation."""
        opening = facts.opening[:OPENING_CHARS].encode() or facts.text[:OPENING_CHARS]
        if not opening:  # token ids, or images alone
            self._without_text += 1
            return self._without_text * GOLDEN % POINTS
        length = len(facts.opening).to_bytes(8, "big")
        digest = blake2b(length, digest_size=8, key=self._salt)
        digest.update(tenant.encode("utf-8", "surrogatepass") + b"\0" + opening)
        return int.from_bytes(digest.digest(), "big")
