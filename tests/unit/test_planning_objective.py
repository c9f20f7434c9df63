"""Objectives by length: their syntax, which requests each class judges, and which pool is to blame."""

from math import inf, isnan, nan

import numpy as np
import pytest

from extproc.core.errors import ConfigurationError
from extproc.planning.model.objective import LengthClass, Objective, parse_objective
from extproc.planning.simulation.fleet import FleetRun, PoolUse
from extproc.planning.simulation.steady import steadiness
from extproc.planning.simulation.summary import BATCHES, summarise
from extproc.planning.simulation.summary import _half_width as half_width
from extproc.planning.simulation.verdict import verdict
from extproc.planning.simulation.watch import watch_for

BY_LENGTH = Objective(30.0, 0.08, 0.999, (LengthClass(8192, 2.0, 0.05),))


def test_an_objective_is_read_as_it_is_written() -> None:
    """Times that a class omits are those of --ttft and --tpot-ms; formatting and parsing round-trip."""
    read = parse_objective("<=8,192: ttft 2s, tpot 50ms; else: ttft 30s", Objective())
    assert BY_LENGTH == read
    assert read == parse_objective(str(read), Objective())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the last class must be 'else:'"),
        ("<=8192: ttft 2s", "the last class must be 'else:'"),
        ("8192: ttft 2s; else: ttft 3s", "a class begins with '<=TOKENS:' or 'else:'"),
        ("<=8192: latency 2s; else: ttft 3s", "'ttft' or 'tpot' and a time in s or ms is needed"),
        ("<=8192: ttft 2; else: ttft 3s", "'ttft' or 'tpot' and a time in s or ms is needed"),
        (
            "<=8192: ttft 0s; else: ttft 3s",
            "objective TTFT 0 s, TPOT 80 ms, success 0.999: times must be positive",
        ),
        ("<=8192: ttft .s; else: ttft 3s", "'ttft .s'"),
        ("<=8192: ttft 1.2.3s; else: ttft 3s", "'ttft 1.2.3s'"),
        ("else: ttft " + "9" * 400 + "s", "times must be positive and finite"),
        ("<=" + "9" * 400 + ": ttft 1s; else: ttft 3s", "a class holds up to 1 to 10,000,000 tokens"),
        ("<=8192: ttft 1s; <=4096: ttft 1s; else: ttft 3s", "ascending order of length"),
    ],
)
def test_a_wrong_objective_is_refused_with_its_part(text: str, message: str) -> None:
    """One sentence says what a class looks like."""
    with pytest.raises(ConfigurationError, match=message):
        parse_objective(text, Objective())


def fleet_run(ttft_s: list[float], total: list[int], pool: list[int], pools: int = 2) -> FleetRun:
    """Return a run with these latencies and pools in which nothing else happened."""
    size = len(ttft_s)
    arrival = np.arange(size, dtype=float)
    return FleetRun(
        arrival_s=arrival,
        finish_s=arrival + 0.5,
        ttft_s=np.array(ttft_s),
        tpot_s=np.full(size, nan),
        total=np.array(total),
        pool=np.array(pool),
        misrouted=np.zeros(size, bool),
        truncated=np.zeros(size, bool),
        pools=tuple(PoolUse(str(index), 1, 0.0, 0.0, 0) for index in range(pools)),
        under_counted=0,
    )


def test_short_requests_are_judged_by_their_own_objective() -> None:
    """Short requests that wait 3 s miss 2 s, long ones that wait 20 s are in time; the short pool is to blame."""
    run = fleet_run([3.0, 20.0] * 1000, [100, 9000] * 1000, [0, 1] * 1000)
    judged = verdict(summarise(run, BY_LENGTH), BY_LENGTH)
    assert (False, True) == judged.passed
    assert ["P99 TTFT of requests <= 8,192 tokens 3.00 s (required: 2 s)"] == [str(miss) for miss in judged.misses]


def test_a_starved_long_pool_cannot_hide_behind_short_requests() -> None:
    """All requests of the long pool are late, although they are fewer than 1 % of all requests."""
    late = [index % 200 == 0 for index in range(4000)]
    run = fleet_run([9.0 if each else 0.1 for each in late], [100] * 4000, [int(each) for each in late])
    assert (True, False) == verdict(summarise(run, Objective()), Objective()).passed


@pytest.mark.parametrize(("late", "passes"), [(18, True), (19, False)])
def test_one_per_cent_may_be_late_and_not_one_more(late: int, passes: bool) -> None:  # noqa: FBT001
    """The verdict counts requests, and agrees with the percentile that is shown."""
    times = [0.1] * 200 + [9.0] * late + [0.1] * (1800 - late)
    summary = summarise(fleet_run(times, [100] * 2000, [0] * 2000, 1), Objective())
    assert passes is all(verdict(summary, Objective()).passed)
    assert passes is (summary.all.ttft_p99_s <= Objective().ttft_s)


@pytest.mark.parametrize(("others", "passed"), [(450, (False, True)), (451, (False, False))])
def test_a_pool_is_not_to_blame_for_late_requests_that_are_allowed(others: int, passed: tuple[bool, bool]) -> None:
    """Of 1,800 requests a quarter may be late: without the pool with the most late ones, exactly that many are."""
    late = [0] * 500 + [1] * others
    times = [0.1] * 200 + [9.0] * len(late) + [0.1] * (1800 - len(late))
    pool = [0] * 200 + late + [0] * (1800 - len(late))
    objective = Objective(late=0.25)
    assert passed == verdict(summarise(fleet_run(times, [100] * 2000, pool), objective), objective).passed


def test_a_pool_whose_class_may_be_late_more_often_is_judged_by_it_alone() -> None:
    """A pool that serves a part of a class gets an allowance of its own, above one per cent."""
    times = [0.1] * 200 + [9.0] * 60 + [0.1] * 1740
    summary = summarise(fleet_run(times, [100] * 2000, [0] * 2000, 1), Objective())
    assert [False, True] == [all(verdict(summary, Objective(late=late)).passed) for late in (0.02, 0.04)]


def test_the_watch_gives_up_when_the_verdict_is_certain() -> None:
    """It gives up at the first late request beyond the allowed number, when the rest can no longer matter."""
    watch = watch_for(Objective(), np.full(2000, 100), 200, 1)
    for request in range(200, 218):
        watch.note(0, request, 9.0, nan)
    assert not watch.hopeless
    watch.note(0, 218, 9.0, nan)
    assert watch.hopeless


def test_latencies_are_listed_by_length_even_with_one_objective() -> None:
    """The tables list the usual classes from short to long."""
    summary = summarise(fleet_run([0.1, 5.0] * 500, [100, 40_000] * 500, [0, 1] * 500), Objective(ttft_s=9.0))
    names = [each.name for each in summary.by_length]
    assert ["<= 2,048", "<= 8,192", "<= 32,768", "longer"] == names
    assert [0.1, 5.0] == [each.latency.ttft_p99_s for each in summary.by_length if each.latency.requests]
    assert "<= 2,048" == summary.shortest.name
    assert summary.by_length[-1].limit is None


def test_a_queue_that_grows_to_the_end_is_not_steady() -> None:
    """Latencies that keep rising are detected; constant ones are not."""
    rng = np.random.default_rng(0)
    arrival = np.cumsum(rng.exponential(0.1, 5000))
    assert steadiness(arrival, arrival + 10 + 0.05 * arrival).grows
    assert not steadiness(arrival, arrival + rng.exponential(10.0, 5000)).grows


def test_the_warm_up_is_as_long_as_the_fleet_takes_to_fill() -> None:
    """With latencies of 100 s, 100 s of a run of 1,000 s are left out."""
    arrival = np.arange(10_000) / 10.0
    found = steadiness(arrival, arrival + 100.0)
    assert found.warm_up == pytest.approx(0.1, abs=0.02)
    assert not found.too_short
    assert steadiness(arrival, arrival + 900.0).too_short


def test_the_last_class_holds_all_longer_requests() -> None:
    """A request's class is the first one whose limit holds it."""
    assert [0, 0, 1] == BY_LENGTH.of(np.array([1, 8192, 8193])).tolist()
    assert inf == BY_LENGTH.classes[-1].limit


def test_a_run_in_which_the_fleet_hardly_fills_is_too_short() -> None:
    """Requests arrive for 4 s and stay for 8.6 s: a fleet of any size looks good until the end."""
    arrival = np.sort(np.random.default_rng(0).uniform(0, 4, 4_000))
    assert steadiness(arrival, arrival + 8.6).too_short
    assert not steadiness(arrival * 10, arrival * 10 + 8.6).too_short


def test_the_interval_of_a_p99_is_that_of_batch_means() -> None:
    """Batches in order of arrival and Student's t: 2.262 standard errors
    of ten tails; too few requests have none.
    """
    tails = np.repeat(np.arange(1.0, BATCHES + 1), 200)
    assert 10 == BATCHES
    assert 2.262 * tails[::200].std(ddof=1) / 10**0.5 == pytest.approx(half_width(tails), rel=1e-3)
    assert half_width(np.full(2_000, 3.0)) == 0
    assert isnan(half_width(tails[:10]))
