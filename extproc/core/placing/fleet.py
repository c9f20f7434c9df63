"""The models that pools serve, and their load: one frozen value, replaced by reference, that each decision reads.

The pools that serve a model form its ladder, smallest first; the last rung is the model's default. The pools that
serve it are configured (globs), discovered (the models that all servers of a pool list), or both, in which case
both must agree. Only the configuration can remove the last pool from a ladder: discovery may be wrong, and in
doubt a request goes where it would go without us. If nothing is known about any pool, one ladder, built once,
serves all names.

Rejected: a router per model, which would learn separately what models share; one default for all models, which
would send requests that are too long for one model's pool to servers of another model.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from types import MappingProxyType

from extproc.core.placing.pool import Pool, Reason

__all__ = ["ANY_OTHER", "Busy", "Fleet", "Ladder", "PoolLoad", "PoolWatched", "Rung", "Served", "Serving"]

Served = Mapping[str, int | None]
"""The models that a pool's servers list, with the tokens that they hold of one sequence; None if not reported.

With ANY_OTHER among them the servers accept every name, and serve the model that they list first (SGLang).
"""

ANY_OTHER = ""  # a name that no request has: one that names no model is for the first


@dataclass(frozen=True, slots=True)
class Rung:
    """One pool for one model: the largest likeliest total and the largest bound that go there, in tokens."""

    pool: Pool
    budget_tokens: int
    context_tokens: int


@dataclass(frozen=True, slots=True)
class Ladder:
    """The pools that serve one model; `reason` is why a request goes to the default and not to a smaller one."""

    smaller: tuple[Rung, ...]
    default: Rung
    reason: Reason = Reason.TOO_LONG

    def context_tokens(self, pool: Pool) -> int:
        """Return the longest sequence of a pool, in tokens; as configured if it does not serve the model."""
        for rung in (*self.smaller, self.default):
            if rung.pool is pool:
                return rung.context_tokens
        return pool.context_tokens

    def others(self, home: Pool) -> Iterator[Rung]:
        """Yield all rungs except the pool's own: the larger ones upwards, then the smaller ones downwards."""
        rungs = (*self.smaller, self.default)
        at = next((index for index, rung in enumerate(rungs) if rung.pool is home), len(rungs))
        yield from rungs[at + 1 :]
        yield from reversed(rungs[:at])


class Serving:
    """Which pools (ascending, the last is the default) serve which model; `served` are discovered models by pool.

    The time of a lookup grows with the number of pools and with nothing else.
    """

    def __init__(self, pools: Sequence[Pool], served: Mapping[str, Served] = MappingProxyType({})) -> None:
        self.pools = tuple(pools)
        self.served = dict(served)
        self._patterns = {pool.name: _pattern(pool.models) for pool in pools if pool.models}
        # A request that names no model is for the one that the servers list first (vLLM's rule).
        self._unnamed = next(iter(self.served.get(pools[-1].name, ())), "")
        same_for_all = not self._patterns and not self.served
        self._for_all = self._made("") if same_for_all else None
        names = {name for models in self.served.values() for name in models if name != ANY_OTHER}
        self._ladders = {name: self._made(name) for name in names}

    def ladder(self, model: str) -> Ladder:
        """Return the pools for a model; "" for a request that names none."""
        if self._for_all is not None:
            return self._for_all
        return self._ladders.get(model) or self._unlisted(model)

    def _unlisted(self, model: str) -> Ladder:
        """Return the pools for a name that no server lists: those whose servers accept any if the default's do."""
        if not model:
            return self._made(self._unnamed)
        if ANY_OTHER not in self.served.get(self.pools[-1].name, ()):
            return self._made(model)
        base, _, _ = model.partition(":")
        listed = [pool for pool in self.pools if ANY_OTHER in self.served.get(pool.name, (ANY_OTHER,))]
        return self._made(base if base in self._ladders else self._unnamed, listed)

    def _made(self, model: str, among: Sequence[Pool] | None = None) -> Ladder:
        last = self.pools[-1]
        pools = [pool for pool in among or self.pools if self._is_configured(pool, model)]
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
    """Return one regular expression for all globs; the expressions that fnmatch generates do not backtrack."""
    return re.compile("|".join(map(translate, globs)))


@dataclass(frozen=True, slots=True)
class Busy:
    """The load that the servers of a pool reported, summed over the `endpoints` servers that responded.

    `waiting` and `running` are requests, `kv_usage` is the mean share of the KV caches in use, and `kv_tokens` is
    the total size of the KV caches (0: not reported).
    """

    endpoints: int
    waiting: int
    running: int
    kv_usage: float
    kv_tokens: int = 0


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """A pool's load at the last measurement, and what follows from it until the next one.

    `requests` and `tokens` are the totals that this router had placed there before the measurement. Judging by the
    past, the pool takes `absorbs` more requests without queueing. A `share` of the requests that belong there goes
    elsewhere; `episode` is the number of the current overload.
    """

    busy: Busy
    requests: int = 0
    tokens: int = 0
    absorbs: int = 0
    share: float = 0.0
    episode: int = 0


@dataclass(frozen=True, slots=True)
class PoolWatched:
    """The result of one round of polling the servers of a pool, for metrics.

    `asked` servers were polled and `answered` of them responded; `models` is the number of models that the pool is
    known to serve; `pressure` is 1 at its limit and nan while its load is unknown; `share` is the share of its
    requests that leaves it; `preemptions` is the total that its servers have reported.
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
    """The models that pools serve, the load of pools by name, if known, and the base models of adapters."""

    serving: Serving
    loads: Mapping[str, PoolLoad] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)

    def under(self, pools: Sequence[Pool]) -> "Fleet":
        """Return the fleet for newly configured pools; what was reported by pools with other endpoints is lost."""
        asked = {pool.name: pool.endpoints for pool in self.serving.pools}
        same = {pool.name for pool in pools if pool.endpoints and pool.endpoints == asked.get(pool.name)}
        served = {name: models for name, models in self.serving.served.items() if name in same}
        loads = {name: load for name, load in self.loads.items() if name in same}
        return Fleet(Serving(pools, served), loads, self.parents)
