"""Runs that are too short: what they must not be taken to show, and how long runs are instead."""

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from extproc.planning.design import pool
from extproc.planning.design.pool import PoolTask, Tuning, best_pool
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.hardware.instance import Instance
from extproc.planning.model.objective import Objective
from extproc.planning.model.setup import Setup
from extproc.planning.simulation import search
from extproc.planning.simulation.balancing import Balance, Balancing
from extproc.planning.simulation.bracket import Bracket
from extproc.planning.simulation.search import FoundFleet, rough_fleet, smallest_fleets
from extproc.planning.simulation.steady import steadiness
from extproc.planning.simulation.summary import Summary
from extproc.planning.simulation.task import Design, SearchTask, make_workload, run_fleet
from extproc.planning.simulation.verdict import verdict
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.lengths import Lengths

LONG = 65_536


def chat() -> Lengths:
    """Return prompts of up to 2,000 tokens with answers of 200 on average."""
    rng = np.random.default_rng(0)
    return Lengths(rng.integers(100, 2_000, 2_000), rng.geometric(1 / 200, 2_000), "chat")


def task(requests: int, rate: float = 200) -> SearchTask:
    """Return the search of one pool of Llama-3-8B on H100 with runs of this length."""
    catalogue = built_in()
    instance = Instance(catalogue.model("llama-3-8b"), catalogue.gpu("h100-80g"), 1)
    setup = Setup("8B", "H100", instance, LONG, Objective(), spare=0, price_usd_h=2.0)
    design, balancing = Design("one", (LONG,)), Balancing(Balance.FULL_SCAN)
    return SearchTask(design, setup, chat(), DeclaredRule.TRUTH, rate, requests, 1, "oracle", balancing)


def test_a_size_found_only_because_a_smaller_one_still_fills_is_not_certain() -> None:
    """In 20 s of traffic nine instances fail because they are still filling, although they are enough: the ten
    that are found are reported as not known to be steady.
    """
    (found,) = smallest_fleets(task(4_000))
    assert (10,) == found.instances
    assert not found.summary.too_short
    assert "runs too short to judge" == found.not_steady
    longer = task(16_000)
    assert verdict(run_fleet(longer, make_workload(longer, 1), (9,)), Objective()).misses == ()


def test_growth_is_doubtful_in_a_run_of_few_stays() -> None:
    """The same growing stays are doubtful over 50 s, and certain over 500 s."""
    arrival = np.cumsum(np.random.default_rng(0).exponential(0.1, 5_000))
    long, short = (steadiness(at, at + 10 + 0.05 * arrival) for at in (arrival, arrival / 10))
    assert (True, False) == (long.grows, long.doubtful)
    assert (True, True) == (short.grows, short.doubtful)


def test_the_stays_of_the_few_long_requests_count() -> None:
    """One request in fifty stays for 60 s and the others for 1 s: after 30 s the pool still fills."""
    rng = np.random.default_rng(0)
    arrival = np.sort(rng.uniform(0, 30, 6_000))
    found = steadiness(arrival, arrival + np.where(rng.random(6_000) < 0.02, 60.0, 1.0))
    assert (True, True) == (found.grows, found.doubtful)


def test_a_pool_that_is_late_fails_without_doubt() -> None:
    """Half of the instances that are needed are late in a short run, too."""
    short = task(4_000)
    judged = verdict(run_fleet(short, make_workload(short, 1), (4,)), Objective())
    assert ((False,), (False,)) == (judged.passed, judged.doubtful)
    judged = verdict(run_fleet(short, make_workload(short, 1), (9,)), Objective())
    assert ((False,), (True,)) == (judged.passed, judged.doubtful)


@pytest.mark.parametrize(("fails", "doubtful"), [([9, 8], True), ([8, 9], True), ([8, 10], False)])
def test_the_largest_size_that_failed_decides_about_doubt(fails: list[int], doubtful: bool) -> None:  # noqa: FBT001
    """Size 9 failed in doubt; what the others did only counts if they are larger."""
    bracket = Bracket(12, 0.1)
    for size in fails:
        bracket.size = size
        bracket.judge(passed=False, doubtful=size == 9)
    assert doubtful is bracket.doubtful


def test_lengths_that_agree_are_no_answer_while_a_smaller_size_is_in_doubt() -> None:
    """Runs of 15 s and 20 s find the same size, for the same wrong reason."""
    (found,) = smallest_fleets(replace(task(3_000), longest=4_000))
    assert (10, 10) == (found.shorter, found.total)
    assert "even runs of 4,000 requests are too short to judge" == found.not_steady


def pool_task(lengths: Lengths, rate: float) -> PoolTask:
    """Return the search of the best pool for all requests, with nothing tuned."""
    base = task(2_000)
    tuning = Tuning(parallelism=False, knobs=False)
    return PoolTask(lengths, rate, LONG, base.setup, Objective(), base.rule, base.balancing, tuning)


def test_a_pool_of_long_answers_is_not_sized_by_how_long_it_fills() -> None:
    """Answers of 2,000 tokens fill the pool for most of a minute, in which ten instances seem to grow; nine are
    enough, as runs of 16 minutes show.
    """
    found = best_pool(pool_task(Lengths(np.full(100, 200), np.full(100, 2_000), "long answers"), 50))
    assert found is not None
    assert 9 == found.instances


@pytest.mark.parametrize("rate", [20, 200, 1_600])
def test_pools_are_searched_with_a_minute_of_traffic_at_any_rate(
    rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is short beside the time that requests stay shows only how a pool fills."""
    asked: list[SearchTask] = []

    def found(question: SearchTask) -> FoundFleet:
        asked.append(question)
        return cast("FoundFleet", SimpleNamespace(total=3, requests=question.requests))

    monkeypatch.setattr(pool, "rough_fleet", found)
    assert best_pool(pool_task(chat(), rate)) is not None
    assert all(each.requests >= 60 * rate and each.longest > each.requests for each in asked)


@pytest.mark.parametrize(("doubtful_below", "asked_for"), [(0, 1), (3_000, 2), (99_000, 3)])
def test_pools_are_searched_with_longer_runs_only_while_their_size_is_in_doubt(
    doubtful_below: int, asked_for: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One length is enough to compare pools unless smaller ones only seem to grow; the longest counts anyway."""
    asked: list[int] = []

    def searched(question: SearchTask, *_: object) -> FoundFleet:
        asked.append(question.requests)
        summary, doubtful = cast("Summary", SimpleNamespace()), question.requests < doubtful_below
        return FoundFleet(question.design, 1, (3,), summary, 1, question.requests, "short" * doubtful, 3, doubtful)

    monkeypatch.setattr(search, "_search", searched)
    monkeypatch.setattr(search, "_start", lambda _: (1,))
    assert (3,) == rough_fleet(replace(task(2_000), longest=8_000)).instances
    assert [2_000 * 2**n for n in range(asked_for)] == asked
