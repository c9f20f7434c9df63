"""Runs without a steady state: a trace's own arrivals, and instances that die. Every request counts in them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from extproc.planning.design.notes import arrival_notes
from extproc.planning.design.recommend import recommend_simulated
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.hardware.instance import Instance
from extproc.planning.model.costs import Costs
from extproc.planning.model.objective import Objective
from extproc.planning.model.setup import Setup
from extproc.planning.simulation.as_arrived import ArrivedRun, run_as_arrived
from extproc.planning.simulation.balancing import Balance, Balancing
from extproc.planning.simulation.search import smallest_fleets
from extproc.planning.simulation.steady import steadiness
from extproc.planning.simulation.task import (
    Design,
    SearchTask,
    make_workload,
    run_fleet,
    run_unless_hopeless,
    run_with_failure,
)
from extproc.planning.simulation.verdict import verdict
from extproc.planning.workload.arrivals import trace_workload
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.lengths import Lengths

REQUESTS = 6_000


def task(gaps_s: Sequence[float]) -> SearchTask:
    """Return the search of one pool of Llama-3-8B on H100 for a trace with these gaps, at its own rate."""
    rng = np.random.default_rng(0)
    size = len(gaps_s)
    arrival = np.cumsum(gaps_s) - gaps_s[0]
    lengths = Lengths(rng.integers(500, 3_000, size), rng.integers(100, 300, size), "trace", arrival)
    catalogue = built_in()
    instance = Instance(catalogue.model("llama-3-8b"), catalogue.gpu("h100-80g"), 1)
    setup = Setup("8B", "H100", instance, 65_536, Objective(), spare=0, price_usd_h=2.0)
    rate, balancing = size / float(arrival[-1]), Balancing(Balance.FULL_SCAN)
    return SearchTask(
        Design("one", (65_536,)), setup, lengths, DeclaredRule.TRUTH, rate, size, 1, "oracle", balancing, "trace"
    )


def busy_start() -> SearchTask:
    """Return a trace whose first 15 % arrive at four times the rate of the others."""
    rng = np.random.default_rng(0)
    busy = int(0.15 * REQUESTS)
    return task([*rng.exponential(0.005, busy), *rng.exponential(0.02, REQUESTS - busy)])


def test_a_burst_may_need_many_times_the_instances_of_the_mean() -> None:
    """800 requests within half a second of a quarter of an hour need more than eight times the one instance that
    the mean rate needs: the search goes on until it has found them.
    """
    rng = np.random.default_rng(0)
    burst = task([*rng.exponential(0.33, 1_500), *rng.exponential(0.0006, 800), *rng.exponential(0.33, 1_500)])
    (found,) = smallest_fleets(burst)
    assert found.total > 9
    workload = make_workload(burst, 1)
    for instances, met in ((found.total, True), (found.total - 1, False)):
        judged = verdict(run_fleet(burst, workload, (instances,)), burst.setup.objective)
        assert judged.passed == (met,)


def test_a_busy_start_of_a_trace_counts() -> None:
    """The fleet that is found has at most 1 % of all the trace's requests wait over 2 s."""
    (found,) = smallest_fleets(busy_start())
    assert 0 == found.summary.warm_up
    assert REQUESTS == found.summary.all.requests
    assert found.summary.all.ttft_p99_s <= 2
    assert "" == found.not_steady


def test_a_run_that_is_given_up_early_counts_the_start_as_well() -> None:
    """A fleet that is late only in the busy start is hopeless, by the same requests as the verdict."""
    search = busy_start()
    workload = make_workload(search, 1)
    assert run_unless_hopeless(search, workload, (2,), None) is None
    assert (False,) == verdict(run_fleet(search, workload, (2,)), Objective()).passed


def test_a_load_that_rises_to_the_end_of_a_trace_can_be_planned_for() -> None:
    """A pool that follows the load is not a pool that cannot keep up."""
    rng = np.random.default_rng(0)
    (found,) = smallest_fleets(task(rng.exponential(1 / np.linspace(5, 60, REQUESTS)).tolist()))
    assert ("", False) == (found.not_steady, found.summary.by_pool[0].grows)
    assert found.summary.all.ttft_p99_s <= 2


@pytest.mark.parametrize(("seconds", "too_short"), [(100, False), (10, True)])
def test_a_trace_that_ends_before_the_fleet_has_filled_is_too_short(seconds: float, too_short: bool) -> None:  # noqa: FBT001
    """Requests that stay for 8 s and arrive within 10 s have seen an empty fleet only."""
    arrival = np.linspace(0, seconds, 1_000)
    assert too_short is steadiness(arrival, arrival + 8.0, stationary=False).too_short


def test_instances_that_die_leave_a_busier_fleet_not_a_growing_one() -> None:
    """Of four instances three are enough: the step in the middle of the run is not taken for growth."""
    search = busy_start()
    steady = SearchTask(
        search.design, search.setup, search.lengths, search.rule, 40, REQUESTS, 1, "oracle", search.balancing
    )
    workload = make_workload(steady, 1)
    assert verdict(run_fleet(steady, workload, (3,)), Objective()).misses == ()
    assert () == run_with_failure(steady, (4,)).misses


def poisson_of(search: SearchTask) -> SearchTask:
    """Return the same search with Poisson arrivals at the trace's rate."""
    return replace(search, arrivals="poisson")


def test_a_fleet_for_poisson_arrivals_is_tried_at_the_traces_own() -> None:
    """The fleet that suffices at random is too small for a trace with a busy start, and a larger one is not."""
    search = poisson_of(busy_start())
    small, large = run_as_arrived(search, (4,)), run_as_arrived(search, (8,))
    assert verdict(run_fleet(search, make_workload(search, 1), (4,)), Objective()).misses == ()
    assert small is not None
    assert large is not None
    assert any("TTFT" in miss for miss in small.misses)
    assert (REQUESTS, ()) == (large.requests, large.misses)
    assert large.times_faster == pytest.approx(1)


@pytest.mark.parametrize("kept", [0, 1_000])
def test_without_arrival_times_that_tell_anything_nothing_is_tried(kept: int) -> None:
    """A trace without times, or too short for a P99, shows nothing; a fleet found with them is known."""
    search = poisson_of(busy_start())
    lengths = search.lengths
    arrival = None if lengths.arrival_s is None or kept == 0 else lengths.arrival_s[:kept]
    size = kept or REQUESTS
    short = replace(lengths, prompt=lengths.prompt[:size], output=lengths.output[:size], arrival_s=arrival)
    assert run_as_arrived(replace(search, lengths=short), (4,)) is None
    assert run_as_arrived(busy_start(), (4,)) is None


def test_a_plan_says_that_arrivals_are_poisson_and_what_the_traces_own_would_do() -> None:
    """One note, which names what is missed and how much faster the trace's time passes."""
    run = ArrivedRun((3,), 4_000, 12.5, ("P99 TTFT 7.6 s (required: 2 s)",))
    assert arrival_notes(run, stationary=False) == ()
    (plain,) = arrival_notes(None, stationary=True)
    (missed,) = arrival_notes(run, stationary=True)
    (met,) = arrival_notes(replace(run, misses=(), times_faster=1.0), stationary=True)
    assert "at random (Poisson)" in plain
    assert "(4,000 requests, 12 times as fast as they were)" in missed
    assert "missed: P99 TTFT 7.6 s" in missed
    said = recommend_simulated((), Costs(1, 1, None), run)
    assert said.endswith("own arrival times, 12 times as fast as they were: P99 TTFT 7.6 s (required: 2 s)")
    assert recommend_simulated((), Costs(1, 1, None), replace(run, misses=())) in said
    assert "(4,000 requests) the objective of the recommended fleet, with its spares serving, is met" in met


@pytest.mark.parametrize("tick_s", [1.0, 3.0])
def test_a_clock_with_coarse_ticks_does_not_make_bursts(tick_s: float) -> None:
    """Requests that share a time arrive at different moments of that tick, in order, and each in its own tick."""
    rng = np.random.default_rng(0)
    exact = np.cumsum(rng.exponential(0.1, REQUESTS))
    ticks = np.floor(exact / tick_s) * tick_s
    ticks -= ticks[0]
    lengths = Lengths(np.full(REQUESTS, 100), np.full(REQUESTS, 10), "ticks", ticks)
    drawn = trace_workload(lengths, 10, DeclaredRule.TRUTH, rng).arrival_s
    again = trace_workload(lengths, 10, DeclaredRule.TRUTH, rng).arrival_s
    times = drawn * float(ticks[-1]) * 10 / REQUESTS
    assert bool((drawn == again).all())
    assert bool((np.diff(drawn) > 0).all())
    assert float(np.abs(times - ticks).max()) < tick_s
    in_quarters = np.bincount((drawn * 4).astype(np.int64))  # a Poisson process has a variance like its mean
    assert float(in_quarters.var() / in_quarters.mean()) < 1.2


def test_exact_times_of_a_trace_are_taken_as_they_are() -> None:
    """Gaps between requests are the trace's own where no two share a time."""
    gaps = np.random.default_rng(0).exponential(0.1, 1_000)
    arrival = np.cumsum(gaps) - gaps[0]
    lengths = Lengths(np.full(1_000, 100), np.full(1_000, 10), "exact", arrival)
    rate = 1_000 / float(arrival[-1])
    drawn = trace_workload(lengths, rate, DeclaredRule.TRUTH, np.random.default_rng(1)).arrival_s
    assert bool(np.allclose(drawn, arrival))
