"""Instances that die during a run: no request is lost, and the plan states the effect."""

from dataclasses import replace

import numpy as np
import pytest

from extproc.planning.design.notes import failure_notes
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.hardware.instance import Instance
from extproc.planning.hardware.roofline import IterationCost
from extproc.planning.model.objective import Objective
from extproc.planning.model.setup import Setup
from extproc.planning.model.throughput import InstanceLimits
from extproc.planning.simulation.balancing import Balance, Balancing
from extproc.planning.simulation.fleet import simulate
from extproc.planning.simulation.pool import PoolSpec, SimulatedPool
from extproc.planning.simulation.routers import OnePoolRouter
from extproc.planning.simulation.search import smallest_fleets
from extproc.planning.simulation.task import Design, FailureRun, SearchTask, run_with_failure
from extproc.planning.workload.arrivals import Workload, poisson_workload
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.lengths import Lengths

COST = IterationCost(tuple(0.01 + 0.0001 * n for n in range(513)), 1e-8, 1e-9)
LIMITS = InstanceLimits(64, 512, 65_536, 8192)
RULES = [Balancing(rule) for rule in Balance]


def work(requests: int = 2_000, rate: float = 40) -> Workload:
    """Return requests of up to 2,200 tokens."""
    rng = np.random.default_rng(2)
    lengths = Lengths(rng.integers(50, 2000, 1000), rng.integers(1, 200, 1000), "test")
    return poisson_workload(lengths, rate, requests, DeclaredRule.TRUTH, rng)


@pytest.mark.parametrize("balancing", RULES, ids=str)
def test_every_request_of_an_instance_that_dies_is_served_by_another(balancing: Balancing) -> None:
    """With every balancing rule, its requests restart, and no later request is sent to the dead instance."""
    workload = work()
    run = simulate(
        workload, (PoolSpec("one", 4, LIMITS, COST),), OnePoolRouter(), balancing, fails_at=1_000, check=True
    )
    assert run.restarted > 0
    assert not np.isnan(run.ttft_s).any()
    assert not np.isnan(run.finish_s).any()
    assert not run.truncated.any()


def test_the_latency_of_a_restarted_request_counts_from_its_arrival() -> None:
    """The latency counts from the first attempt."""
    workload = work(rate=60)
    specs = (PoolSpec("one", 3, LIMITS, COST),)
    whole = simulate(workload, specs, OnePoolRouter())
    failed = simulate(workload, specs, OnePoolRouter(), fails_at=1_000)
    before = workload.arrival_s < workload.arrival_s[1_000] - 60
    assert (whole.ttft_s[before] == failed.ttft_s[before]).all()
    assert np.percentile(failed.ttft_s, 99) > np.percentile(whole.ttft_s, 99)


def test_the_last_instance_of_a_pool_stays() -> None:
    """An instance without another to fail over to is not killed."""
    pool = SimulatedPool(PoolSpec("one", 1, LIMITS, COST), Balancing(), 0)
    assert pool.fail_busiest() == []
    assert 0 == pool.pick()


def test_a_fleet_with_spares_survives_a_failure_that_a_smaller_one_does_not() -> None:
    """With spare instances the fleet still meets the objective after a failure; half the fleet does not."""
    rng = np.random.default_rng(3)
    lengths = Lengths(rng.integers(200, 2000, 3000), rng.integers(50, 250, 3000), "even")
    catalogue = built_in()
    instance = Instance(catalogue.model("llama-3-8b"), catalogue.gpu("h100-80g"), 1)
    setup = Setup("llama-3-8b", "h100-80g", instance, 8192, Objective(ttft_s=0.5))
    task = SearchTask(Design("d", (8192,)), setup, lengths, DeclaredRule.TRUTH, 90, 4000, 1, "oracle")
    found = smallest_fleets(task)[0].instances[0]
    assert found > 2
    spared, halved = run_with_failure(task, (found + 2,)), run_with_failure(task, (found // 2 + 1,))
    assert spared.misses == ()
    assert spared.restarted > 0
    assert any("TTFT" in miss for miss in halved.misses)


def test_a_plan_says_what_a_failure_does() -> None:
    """One sentence, which says what is missed if anything is."""
    run = FailureRun((3, 2), 4_000, 37, ())
    assert failure_notes(None) == ()
    assert "37 start again, and the objective is met" in failure_notes(run)[0]
    assert "missed: P99 TTFT 3 s" in failure_notes(replace(run, misses=("P99 TTFT 3 s",)))[0]
