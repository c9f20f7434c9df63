"""From what the servers of all pools say to the one value that decisions read, swapped by reference."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import nan
from random import Random
from typing import Protocol

from extproc.core.placing.fleet import Busy, Fleet, PoolLoad, PoolWatched, Served, Serving
from extproc.core.placing.pool import Pool
from extproc.core.placing.spill import Spilling, SpillSettings, pressure
from extproc.pools.reports import LoadReport, ModelReport
from extproc.pools.settings import WatchSettings
from extproc.pools.watching import Known, PoolReport, PoolWatch

__all__ = ["Audience", "Survey"]

log = logging.getLogger("dualpool")


class Audience(Protocol):
    """Whom the survey tells, and what it has to know from the router."""

    def placed(self, pool: str) -> tuple[int, int]:
        """Return the requests and tokens that were placed in a pool, ever."""
        ...

    def found(self, fleet: Fleet) -> None:
        """Called with all that is known now."""
        ...

    def watched(self, pool: PoolWatched) -> None:
        """Called for each pool after each round."""
        ...


@dataclass
class _Watched:
    """One pool and what its servers said; `placed` and `asked_at_s` are from before the round."""

    pool: Pool
    spill: SpillSettings
    spilling: Spilling
    known: Known = field(default_factory=Known)
    served: Served | None = None
    load: PoolLoad | None = None
    placed: tuple[int, int] = (0, 0)
    heard_at_s: float | None = None
    listed: tuple[tuple[ModelReport, ...], ...] = ()


class Survey:
    """Keeps what is known of all pools; belongs to the loop that watches them.

    One that follows another, under a changed configuration, goes on from what that knows of pools with the same
    servers: they have not changed, and nobody is told that they have.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        spill: SpillSettings,
        audience: Audience,
        clock: Callable[[], float] = time.monotonic,
        before: "Survey | None" = None,
    ) -> None:
        self._pools = tuple(pools)
        self._spill = spill
        self._audience = audience
        self._clock = clock
        old: dict[str, _Watched] = {} if before is None else before._watched  # noqa: SLF001
        self._watched: dict[str, _Watched] = {
            pool.name: _begun(pool, spill, old.get(pool.name), by_all=pool is not self._pools[-1])
            for pool in pools
            if pool.endpoints
        }
        self._serving = Serving(self._pools, self._served())
        self._parents = self._known_parents()

    def watches(self, settings: WatchSettings, random: Random) -> list[PoolWatch]:
        """Return what watches each pool that has endpoints."""
        return [self._watch(each, settings, random) for each in self._watched.values()]

    def begin(self, pool: str) -> None:
        """Called before the servers of a pool are asked: what is placed from now on they may not tell."""
        self._watched[pool].placed = self._audience.placed(pool)

    def hear(self, pool: str, report: PoolReport) -> None:
        """Take in what the servers of a pool said, and tell what is known of all."""
        watched = self._watched[pool]
        if report.models != watched.listed:
            self._list(watched, report.models)
        if report.weighed or not report.loads:  # else what was placed since the last time still counts
            self._weigh(watched, report.loads)
        load = watched.load
        loads = {name: each.load for name, each in self._watched.items() if each.load is not None}
        self._audience.found(Fleet(self._serving, loads, self._parents))
        self._audience.watched(
            PoolWatched(
                pool,
                report.asked,
                report.answered,
                models=len(watched.served or ()),
                pressure=nan if load is None else pressure(load, self._spill),
                share=0.0 if load is None else load.share,
                preemptions=sum(each.preemptions for each in report.loads),
            )
        )

    def _list(self, watched: _Watched, listed: tuple[tuple[ModelReport, ...], ...]) -> None:
        """Take in the models of a pool, and log when they are others than before."""
        before, watched.listed = watched.served, listed
        watched.served = _served(listed, by_all=watched.pool is not self._pools[-1])
        self._serving = Serving(self._pools, self._served())
        self._parents = self._known_parents()
        if watched.served != before:
            known = None if watched.served is None else len(watched.served)
            log.info(
                "the models of a pool have changed", extra={"fields": {"pool": watched.pool.name, "models": known}}
            )

    def _known_parents(self) -> dict[str, str]:
        return {
            model.name: model.parent
            for each in self._watched.values()
            for models in each.listed
            for model in models
            if model.parent
        }

    def _watch(self, watched: _Watched, settings: WatchSettings, random: Random) -> PoolWatch:
        name, where = watched.pool.name, watched.pool.endpoints
        assert where is not None
        begin, publish = lambda: self.begin(name), lambda report: self.hear(name, report)
        return PoolWatch(name, where, settings, begin, publish, self._clock, random, watched.known)

    def _served(self) -> dict[str, Served]:
        return {name: each.served for name, each in self._watched.items() if each.served is not None}

    def _weigh(self, watched: _Watched, loads: Sequence[LoadReport]) -> None:
        """Take in the load of a pool, and log when requests begin to leave it and when all stay again."""
        before = watched.load.share if watched.load is not None else 0.0
        now_s = self._clock()
        if not loads:
            watched.spilling.lose()
            watched.load = watched.heard_at_s = None
        else:
            elapsed_s = 0.0 if watched.heard_at_s is None else now_s - watched.heard_at_s
            watched.load = watched.spilling.observe(_together(loads), watched.placed, elapsed_s)
            watched.heard_at_s = now_s
        share = watched.load.share if watched.load is not None else 0.0
        if (share > 0) != (before > 0):
            fields = {"pool": watched.pool.name, "share": round(share, 3)}
            if watched.load is not None:
                fields |= {"waiting": watched.load.busy.waiting, "kv_usage": round(watched.load.busy.kv_usage, 3)}
            said = "a pool is overloaded: requests leave it" if share > 0 else "requests leave a pool no longer"
            log.warning(said, extra={"fields": fields})


def _begun(pool: Pool, spill: SpillSettings, before: _Watched | None, *, by_all: bool) -> _Watched:
    """Return a pool to be watched, with what is known of it if its servers were asked before."""
    if before is None or before.pool.endpoints != pool.endpoints:
        return _Watched(pool, spill, Spilling(spill))
    served = _served(before.listed, by_all=by_all)
    if before.spill == spill:
        return replace(before, pool=pool, served=served)
    return _Watched(pool, spill, Spilling(spill), before.known, served, listed=before.listed)


def _together(loads: Sequence[LoadReport]) -> Busy:
    return Busy(
        endpoints=len(loads),
        waiting=sum(load.waiting for load in loads),
        running=sum(load.running for load in loads),
        kv_usage=sum(load.kv_usage for load in loads) / len(loads),
        kv_tokens=sum(load.kv_tokens for load in loads) if all(load.kv_tokens for load in loads) else 0,
    )


def _served(listed: Sequence[Sequence[ModelReport]], *, by_all: bool) -> Served | None:
    """Return the models that all servers of a pool list, or any of them, each with the smallest length told."""
    if not listed:
        return None
    names = [{model.name for model in models} for models in listed]
    wanted = set.intersection(*names) if by_all else set.union(*names)
    served: dict[str, int | None] = {}
    for models in listed:
        for model in models:
            if model.name in wanted:
                known = [length for length in (served.get(model.name), model.max_model_len) if length is not None]
                served[model.name] = min(known, default=None)
    return served
