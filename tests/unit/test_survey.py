"""From the servers' reports to the value that decisions use: models, loads, and notifications."""

import logging
from dataclasses import dataclass, field, replace
from math import isnan
from random import Random

import pytest

from extproc.core.placing.fleet import Fleet, PoolWatched
from extproc.core.placing.pool import Endpoints, Pool, Reason
from extproc.core.placing.spill import SpillSettings
from extproc.pools.reports import LoadReport, ModelReport
from extproc.pools.settings import WatchSettings
from extproc.pools.survey import Survey
from extproc.pools.watching import PoolReport

POOLS = (
    Pool("short", 100, endpoints=Endpoints(("http://s",))),
    Pool("long", 1_000, endpoints=Endpoints(("http://l",))),
)
A, B = ModelReport("a", "", 120), ModelReport("b", "a")


@dataclass
class Audience:
    """An audience that remembers everything."""

    fleets: list[Fleet] = field(default_factory=list)
    pools: list[PoolWatched] = field(default_factory=list)
    requests: int = 0

    def placed(self, pool: str) -> tuple[int, int]:  # noqa: ARG002  (the port's signature)
        """Return the same counts for every pool."""
        return self.requests, self.requests

    def publish(self, fleet: Fleet) -> None:
        """Record it."""
        self.fleets.append(fleet)

    def watched(self, pool: PoolWatched) -> None:
        """Record it."""
        self.pools.append(pool)


@dataclass
class Watching:
    """A survey whose clock advances by a second with each report."""

    audience: Audience = field(default_factory=Audience)
    now_s: float = 0.0

    def __post_init__(self) -> None:
        self.survey = Survey(POOLS, SpillSettings(enabled=True, ramp_s=2), self.audience, lambda: self.now_s)

    def observe(
        self,
        pool: str,
        *servers: tuple[ModelReport, ...],
        waiting: tuple[int, ...] = (0,),
        load_reported: bool = True,
    ) -> Fleet:
        """Let a pool's servers report the models that they list, and the requests that wait for each."""
        self.now_s += 1
        loads = tuple(LoadReport(each, 1, 0.1, preemptions=3) for each in waiting)
        self.survey.begin(pool)
        self.survey.observe(pool, PoolReport(servers, loads, len(servers), len(loads), load_reported))
        return self.audience.fleets[-1]

    def pools_of(self, model: str) -> list[str]:
        """Return the pools that serve a model."""
        ladder = self.audience.fleets[-1].serving.ladder(model)
        return [rung.pool.name for rung in (*ladder.smaller, ladder.default)]


def test_a_smaller_pool_serves_models_that_all_its_servers_list_the_default_any() -> None:
    """In doubt, a request stays where it would go without the router."""
    watching = Watching()
    watching.observe("short", (A, B), (A,))
    watching.observe("long", (A,), (A, B))
    assert (["short", "long"], ["long"]) == (watching.pools_of("a"), watching.pools_of("b"))
    serving = watching.audience.fleets[-1].serving
    assert [Reason.NOT_SERVED, Reason.UNKNOWN_MODEL] == [serving.ladder(model).reason for model in "bc"]


def test_the_base_models_of_adapters_are_known_while_servers_list_them() -> None:
    """An adapter's base reported by any server of any pool is in the fleet until no server reports it."""
    watching = Watching()
    assert {"b": "a"} == watching.observe("short", (A, B), (A,)).parents
    assert {"b": "a"} == watching.observe("long", (A,)).parents
    assert {} == watching.observe("short", (A,), (A,)).parents


def test_of_servers_that_hold_different_lengths_the_smallest_counts() -> None:
    """A request may go to any of them."""
    watching = Watching()
    fleet = watching.observe("short", (A,), (ModelReport("a", "", 90),), (ModelReport("a"),))
    (rung,) = fleet.serving.ladder("a").smaller
    assert (90, 90) == (rung.budget_tokens, rung.context_tokens)


def test_a_pool_whose_reports_are_too_old_counts_as_unknown() -> None:
    """If no server has reported for too long, the pool is used for all models again, and its load is unknown."""
    watching = Watching()
    watching.observe("short", (B,))
    assert ["long"] == watching.pools_of("a")
    watching.observe("short", waiting=())
    assert ["short", "long"] == watching.pools_of("a")
    assert {} == watching.audience.fleets[-1].loads
    assert isnan(watching.audience.pools[-1].pressure)


def test_a_pool_whose_load_is_too_old_is_no_longer_judged_by_it() -> None:
    """Its servers may still list their models; requests neither leave it nor move to it by what is not known."""
    watching = Watching()
    assert {"short"} == watching.observe("short", (A,), waiting=(40,)).loads.keys()
    assert {} == watching.observe("short", (A,), waiting=(), load_reported=False).loads


def test_each_change_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """New models, the start of an overload and its end: one line each, and none without a change."""
    watching = Watching()
    with caplog.at_level(logging.INFO, "dualpool"):
        for waiting in (0, 0, 50, 50, 50, 0, 0, 0):
            watching.observe("short", (A,), waiting=(waiting,))
    expected = [
        "the models of a pool have changed",
        "a pool is overloaded: requests leave it",
        "requests no longer leave a pool",
    ]
    assert expected == [record.message for record in caplog.records]
    assert 0 == watching.audience.pools[-1].share


def test_the_load_of_a_pool_is_that_of_its_servers_together() -> None:
    """Requests are summed, cache usage is averaged; the share rises during an overload."""
    watching = Watching()
    watching.observe("short", (A,), waiting=(0, 0))
    load = watching.observe("short", (A,), waiting=(30, 10)).loads["short"]
    assert (2, 40, 2, 0.1) == (load.busy.endpoints, load.busy.waiting, load.busy.running, load.busy.kv_usage)
    assert 0.5 == load.share
    watched = watching.audience.pools[-1]
    assert (2.5, 6) == (watched.pressure, watched.preemptions)


@pytest.mark.parametrize(("capacities", "together"), [((1_000, 500), 1_500), ((1_000, 0), 0)])
def test_the_cache_of_a_pool_is_unknown_if_that_of_a_server_is(capacities: tuple[int, ...], together: int) -> None:
    """A part of the capacity would look like all of it."""
    watching = Watching()
    loads = tuple(LoadReport(0, 1, 0.1, kv_tokens=each) for each in capacities)
    watching.survey.observe("short", PoolReport(((A,), (A,)), loads, 2, 2, load_reported=True))
    assert together == watching.audience.fleets[-1].loads["short"].busy.kv_tokens


def test_a_report_covers_the_requests_placed_before_its_round() -> None:
    """Requests placed while the servers are being asked count as not yet reported."""
    watching = Watching()
    watching.audience.requests = 7
    assert 7 == watching.observe("short", (A,)).loads["short"].requests


def test_without_a_new_load_the_requests_placed_since_still_count() -> None:
    """While servers do not answer, their last report stays valid, and the
    requests placed since then accumulate.
    """
    watching = Watching()
    watching.observe("short", (A,))
    watching.audience.requests = 7
    assert 0 == watching.observe("short", (A,), load_reported=False).loads["short"].requests


def test_reconfigured_pools_keep_the_reports_of_their_servers(caplog: pytest.LogCaptureFixture) -> None:
    """With the same servers, no change is logged and an overload continues; with
    other servers the pool starts from scratch.
    """
    watching = Watching()
    watching.observe("short", (A,))
    watching.observe("short", (A,), waiting=(50,))
    watching.observe("long", (A, B))
    share = watching.audience.fleets[-1].loads["short"].share
    before, caplog.handler.records = watching.survey, []
    short, long = (
        replace(POOLS[0], max_budget_tokens=90),
        replace(POOLS[1], endpoints=Endpoints(("http://other",))),
    )
    settings = SpillSettings(enabled=True, ramp_s=2)
    watching.survey = Survey((short, long), settings, watching.audience, lambda: watching.now_s, before)
    with caplog.at_level(logging.INFO, "dualpool"):
        fleet = watching.observe("short", (A,), waiting=(50,))
    assert [] == caplog.records
    assert share <= fleet.loads["short"].share
    assert ["short"] == list(fleet.loads)
    assert ([90], {}) == ([rung.budget_tokens for rung in fleet.serving.ladder("a").smaller], fleet.parents)


def test_new_spillover_limits_start_a_new_overload_with_the_same_models() -> None:
    """The servers' models stay known; the share is determined with the new limits."""
    watching = Watching()
    watching.observe("short", (B,))
    watching.survey = Survey(POOLS, SpillSettings(), watching.audience, lambda: watching.now_s, watching.survey)
    fleet = watching.observe("long", (A, B))
    assert ["long"] == list(fleet.loads)
    assert ["long"] == watching.pools_of("a")


def test_a_reported_failure_is_not_reported_again_after_a_reload() -> None:
    """Whether a pool's servers respond is carried over to the new watches."""
    watching = Watching()
    (watch, _) = watching.survey.watches(WatchSettings(), Random(0))
    watch.known.failed_at_s = 0.0
    survey = Survey(POOLS, SpillSettings(), watching.audience, before=watching.survey)
    assert [0.0, None] == [each.known.failed_at_s for each in survey.watches(WatchSettings(), Random(0))]
