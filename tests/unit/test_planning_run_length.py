"""Runs that are too short: what they must not be taken to show, and how long runs are instead."""

from dataclasses import replace

import numpy as np
import pytest

from extproc.planning.hardware.capacity import Instance
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.model.objective import Objective
from extproc.planning.model.setup import Setup
from extproc.planning.simulation.balancing import Balance, Balancing
from extproc.planning.simulation.bracket import Bracket
from extproc.planning.simulation.search import smallest_fleets
from extproc.planning.simulation.steady import steadiness
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
