"""What the pools serve and how loaded they are: one frozen value, swapped by reference, that each decision reads.

A model sees the pools that serve it as a ladder, smallest first; its last rung is the model's default. Which pools
those are is configured (globs), found out (what all servers of a pool list), or both, and then both have to say
so. Only what is configured takes the last pool off the ladder: what was found out may be wrong, and in doubt a
request goes where it would go without us. Where nothing is known of any pool there is one ladder for all names,
made once.

Rejected: a router for each model, which would learn apart what they share; one default for all models, which sends
what is too long for one model's pool to servers of another.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from types import MappingProxyType

from extproc.core.placing.pool import Pool, Reason

__all__ = ["Busy", "Fleet", "Ladder", "PoolLoad", "PoolWatched", "Rung", "Served", "Serving"]

Served = Mapping[str, int | None]
"""Names of models that a pool's servers list, with what they hold of one sequence; None where they do not say."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One pool as one model sees it: the largest likeliest total and the largest bound that go there (tokens)."""

    pool: Pool
    budget_tokens: int
    context_tokens: int


@dataclass(frozen=True, slots=True)
class Ladder:
    """The pools that serve one model; `reason` is why a request is in the default and in no smaller one."""

    smaller: tuple[Rung, ...]
    default: Rung
    reason: Reason = Reason.TOO_LONG

    def context_tokens(self, pool: Pool) -> int:
        """Return what a pool holds of one sequence of the model; what is configured where it does not serve it."""
        for rung in (*self.smaller, self.default):
            if rung.pool is pool:
                return rung.context_tokens
        return pool.context_tokens

    def others(self, home: Pool) -> Iterator[Rung]:
        """Yield the rungs beside a pool's own: the larger ones upwards, then the smaller ones downwards."""
        rungs = (*self.smaller, self.default)
        at = next((index for index, rung in enumerate(rungs) if rung.pool is home), len(rungs))
        yield from rungs[at + 1 :]
        yield from reversed(rungs[:at])


class Serving:
    """Which of the pools (ascending, the last the default) serve a model. `served` is what was found out by name.

    Its lookups take a time that grows with the number of pools and nothing else.
    """

    def __init__(self, pools: Sequence[Pool], served: Mapping[str, Served] = MappingProxyType({})) -> None:
        self.pools = tuple(pools)
        self.served = dict(served)
        self._patterns = {pool.name: _pattern(pool.models) for pool in pools if pool.models}
        # A request without a model is one for that which the servers list first (vLLM's rule).
        self._unnamed = next(iter(self.served.get(pools[-1].name, ())), "")
        same_for_all = not self._patterns and not self.served
        self._for_all = self._made("") if same_for_all else None
        names = {name for models in self.served.values() for name in models}
        self._ladders = {name: self._made(name) for name in names}

    def ladder(self, model: str) -> Ladder:
        """Return the pools for a model; "" for a request that names none."""
        if self._for_all is not None:
            return self._for_all
        return self._ladders.get(model) or self._made(model or self._unnamed)

    def _made(self, model: str) -> Ladder:
        last = self.pools[-1]
        pools = [pool for pool in self.pools if self._is_configured(pool, model)]
        listed = [pool for pool in pools if model in self.served.get(pool.name, {model: None})]
        if not listed:
            return Ladder((), self._rung(last, model), Reason.UNKNOWN_MODEL)
        rungs = [self._rung(pool, model) for pool in pools if pool in listed or pool is last]
        return Ladder(tuple(rungs[:-1]), rungs[-1], Reason.TOO_LONG if len(rungs) > 1 else Reason.NOT_SERVED)

    def _is_configured(self, pool: Pool, model: str) -> bool:
        pattern = self._patterns.get(pool.name)
        return pattern is None or pattern.match(model) is not None

    def _rung(self, pool: Pool, model: str) -> Rung:
        context = self.served.get(pool.name, {}).get(model)
        if context is None:
            context = pool.context_tokens
        elif pool.max_model_len is not None:
            context = min(context, pool.max_model_len)
        return Rung(pool, min(pool.max_budget_tokens, context), context)


def _pattern(globs: Sequence[str]) -> re.Pattern[str]:
    """Return one expression for all globs; those that fnmatch makes do not backtrack."""
    return re.compile("|".join(map(translate, globs)))


@dataclass(frozen=True, slots=True)
class Busy:
    """What the servers of a pool said together, of which `endpoints` responded.

    Requests are those of all of them, `kv_usage` is the mean share of their KV caches in use, and `kv_tokens` what
    those hold together (0: they do not say).
    """

    endpoints: int
    waiting: int
    running: int
    kv_usage: float
    kv_tokens: int = 0


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """How busy a pool was when its servers were asked, and what follows from it until they are asked again.

    `requests` and `tokens` are what this router had placed there, ever, before it asked. By what it took
    before, it takes `absorbs` more requests without a queue. A `share` of what belongs there goes elsewhere, in
    its overload number `episode`.
    """

    busy: Busy
    requests: int = 0
    tokens: int = 0
    absorbs: int = 0
    share: float = 0.0
    episode: int = 0


@dataclass(frozen=True, slots=True)
class PoolWatched:
    """What came of asking the servers of one pool once, for metrics.

    `asked` servers, of which `answered` did; `models` that the pool is known to serve; its `pressure`, 1 at its
    limit and nan while nothing is known of its load; the `share` of its requests that leaves it; the `preemptions`
    that its servers have told, ever.
    """

    pool: str
    asked: int
    answered: int
    models: int
    pressure: float
    share: float
    preemptions: int


@dataclass(frozen=True, slots=True)
class Fleet:
    """What pools serve, the load of those of which it is known, by name, and the base models of adapters."""

    serving: Serving
    loads: Mapping[str, PoolLoad] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)

    def under(self, pools: Sequence[Pool]) -> "Fleet":
        """Return what stays true where pools are configured anew: all that servers said which are still theirs."""
        asked = {pool.name: pool.endpoints for pool in self.serving.pools}
        same = {pool.name for pool in pools if pool.endpoints and pool.endpoints == asked.get(pool.name)}
        served = {name: models for name, models in self.serving.served.items() if name in same}
        loads = {name: load for name, load in self.loads.items() if name in same}
        return Fleet(Serving(pools, served), loads, self.parents)
