"""Combining the reports of all pools' servers into the single value that decisions read, swapped by reference."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import nan
from random import Random
from typing import Protocol

from extproc.core.placing.fleet import ANY_OTHER, Busy, Fleet, PoolLoad, PoolWatched, Served, Serving
from extproc.core.placing.pool import Pool
from extproc.core.placing.spill import Spilling, SpillSettings, pressure
from extproc.pools.reports import LoadReport, ModelReport
from extproc.pools.settings import WatchSettings
from extproc.pools.watching import Known, PoolReport, PoolWatch

__all__ = ["Audience", "Survey"]

log = logging.getLogger("dualpool")


class Audience(Protocol):
    """The receiver of the survey's results; also the source of the router's own counts."""

    def placed(self, pool: str) -> tuple[int, int]:
        """Return the total numbers of requests and tokens that have been placed in a pool so far."""
        ...

    def publish(self, fleet: Fleet) -> None:
        """Called with the current knowledge of all pools after each round of any pool."""
        ...

    def watched(self, pool: PoolWatched) -> None:
        """Called with the results of a pool after each of its rounds."""
        ...


@dataclass
class _Watched:
    """One pool and its servers' reports; `placed` is from before the round, `load_at_s` from the last load."""

    pool: Pool
    spill: SpillSettings
    spilling: Spilling
    known: Known = field(default_factory=Known)
    served: Served | None = None
    load: PoolLoad | None = None
    placed: tuple[int, int] = (0, 0)
    load_at_s: float | None = None
    listed: tuple[tuple[ModelReport, ...], ...] = ()


class Survey:
    """The current knowledge of all pools; used only on the loop that watches them.

    A survey that replaces another one (`before`) after a change of configuration takes over what that knew about
    pools with the same servers; for these no change is logged.
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
            pool.name: _resumed(pool, spill, old.get(pool.name), by_all=pool is not self._pools[-1])
            for pool in pools
            if pool.endpoints
        }
        self._serving = Serving(self._pools, self._served())
        self._parents = self._known_parents()

    def watches(self, settings: WatchSettings, random: Random) -> list[PoolWatch]:
        """Return a watch for each pool that has endpoints."""
        return [self._watch(each, settings, random) for each in self._watched.values()]

    def begin(self, pool: str) -> None:
        """Called before the servers of a pool are asked: their reports may lack requests placed after this."""
        self._watched[pool].placed = self._audience.placed(pool)

    def observe(self, pool: str, report: PoolReport) -> None:
        """Process a pool's report, and pass the knowledge of all pools to the audience."""
        watched = self._watched[pool]
        if report.models != watched.listed:
            self._update_models(watched, report.models)
        # Without a new load, the requests placed since the last one keep counting.
        if report.load_reported or not report.loads:
            self._update_load(watched, report.loads)
        load = watched.load
        loads = {name: each.load for name, each in self._watched.items() if each.load is not None}
        self._audience.publish(Fleet(self._serving, loads, self._parents))
        self._audience.watched(
            PoolWatched(
                pool,
                report.asked,
                report.answered,
                models=_count(watched.served),
                pressure=nan if load is None else pressure(load, self._spill),
                share=0.0 if load is None else load.share,
                preemptions=sum(each.preemptions for each in report.loads),
            )
        )

    def _update_models(self, watched: _Watched, listed: tuple[tuple[ModelReport, ...], ...]) -> None:
        """Process the models of a pool, and log if the served models have changed."""
        before, watched.listed = watched.served, listed
        watched.served = _served(listed, by_all=watched.pool is not self._pools[-1])
        self._serving = Serving(self._pools, self._served())
        self._parents = self._known_parents()
        if watched.served != before:
            known = None if watched.served is None else _count(watched.served)
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
        begin, publish = lambda: self.begin(name), lambda report: self.observe(name, report)
        needs_load = self._spill.enabled
        return PoolWatch(name, where, settings, begin, publish, self._clock, random, watched.known, needs_load)

    def _served(self) -> dict[str, Served]:
        return {name: each.served for name, each in self._watched.items() if each.served is not None}

    def _update_load(self, watched: _Watched, loads: Sequence[LoadReport]) -> None:
        """Process the load of a pool, and log when requests begin to spill over and when they no longer do."""
        before = watched.load.share if watched.load is not None else 0.0
        now_s = self._clock()
        if not loads:
            watched.spilling.lose()
            watched.load = watched.load_at_s = None
        else:
            elapsed_s = 0.0 if watched.load_at_s is None else now_s - watched.load_at_s
            watched.load = watched.spilling.observe(_together(loads), watched.placed, elapsed_s)
            watched.load_at_s = now_s
        share = watched.load.share if watched.load is not None else 0.0
        if (share > 0) != (before > 0):
            fields = {"pool": watched.pool.name, "share": round(share, 3)}
            if watched.load is not None:
                fields |= {"waiting": watched.load.busy.waiting, "kv_usage": round(watched.load.busy.kv_usage, 3)}
            said = "a pool is overloaded: requests leave it" if share > 0 else "requests no longer leave a pool"
            log.warning(said, extra={"fields": fields})


def _resumed(pool: Pool, spill: SpillSettings, before: _Watched | None, *, by_all: bool) -> _Watched:
    """Return the record of a pool, with what is already known of it if `before` has the same endpoints."""
    if before is None or before.pool.endpoints != pool.endpoints:
        return _Watched(pool, spill, Spilling(spill))
    served = _served(before.listed, by_all=by_all)
    if before.spill == spill:
        return replace(before, pool=pool, served=served)
    return _Watched(pool, spill, Spilling(spill), before.known, served, listed=before.listed)


def _count(served: Served | None) -> int:
    """Return how many models are listed by name."""
    return sum(name != ANY_OTHER for name in served or ())


def _together(loads: Sequence[LoadReport]) -> Busy:
    return Busy(
        endpoints=len(loads),
        waiting=sum(load.waiting for load in loads),
        running=sum(load.running for load in loads),
        kv_usage=sum(load.kv_usage for load in loads) / len(loads),
        kv_tokens=sum(load.kv_tokens for load in loads) if all(load.kv_tokens for load in loads) else 0,
    )


def _served(listed: Sequence[Sequence[ModelReport]], *, by_all: bool) -> Served | None:
    """Return the models listed by all servers of a pool (or, without `by_all`, by any), each with the smallest
    length that a server reports.
    """
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
