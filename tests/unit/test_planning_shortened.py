"""Declared outputs that do not fit beside their prompt: vLLM shortens them from 0.32 on, other engines refuse."""

from dataclasses import replace

import numpy as np
import pytest

from extproc.core.placing.policy import Pool, Pools
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.hardware.roofline import IterationCost
from extproc.planning.model.options import ProfileOptions, setup_of
from extproc.planning.model.throughput import InstanceLimits
from extproc.planning.simulation.fleet import FleetRun, simulate
from extproc.planning.simulation.pool import PoolSpec
from extproc.planning.simulation.routers import OnePoolRouter, OracleRouter
from extproc.planning.simulation.search import ObjectiveNotMet, smallest_fleets
from extproc.planning.simulation.task import Design, SearchTask
from extproc.planning.workload.arrivals import Workload, trace_workload
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.lengths import Lengths

COST = IterationCost(tuple(0.01 + 0.0001 * n for n in range(513)), 1e-8, 1e-9)
LIMITS = InstanceLimits(64, 512, 65_536, 1_024)


def run_of(prompt: int, output: int, rule: DeclaredRule, *, shortens: bool) -> FleetRun:
    """Send one request and a short one to a pool of 1,024 tokens."""
    lengths = Lengths(np.array([prompt, 100]), np.array([output, 50]), "test", np.array([0.0, 1.0]))
    workload = trace_workload(lengths, 2, rule, np.random.default_rng(0))
    pool = PoolSpec("all", 1, replace(LIMITS, shortens_outputs=shortens), COST)
    return simulate(workload, (pool,), OnePoolRouter())


def refused(run: FleetRun) -> bool:
    """Return whether the first request was refused."""
    return int(run.pool[0]) < 0


def test_a_declared_output_that_does_not_fit_is_shortened_only_if_it_is_needed() -> None:
    """900 tokens that declare 1,024 are answered: in full if they need 50, cut short if they need 500."""
    enough = run_of(900, 50, DeclaredRule.FIXED_1024, shortens=True)
    assert (refused(enough), bool(enough.truncated[0])) == (False, False)
    cut = run_of(900, 500, DeclaredRule.FIXED_1024, shortens=True)
    assert (refused(cut), bool(cut.truncated[0])) == (False, True)
    assert refused(run_of(900, 50, DeclaredRule.FIXED_1024, shortens=False))


def test_what_does_not_fit_by_itself_is_refused_by_all() -> None:
    """A prompt that leaves no room for a token, and an output that is longer than the context."""
    assert refused(run_of(1_024, 1, DeclaredRule.TRUTH, shortens=True))
    assert not refused(run_of(1_023, 1, DeclaredRule.TRUTH, shortens=True))
    assert refused(run_of(100, 50, DeclaredRule.FIXED_4096, shortens=True))


def test_an_output_that_a_short_pool_cuts_is_not_replayed() -> None:
    """It is a whole answer to the gateway; a refused prompt goes to the long pool as before."""
    pools = Pools([Pool("short", 1_024), Pool("long", 8_192)])
    lengths = Lengths(np.array([900, 2_000]), np.array([200, 200]), "test", np.array([0.0, 1.0]))
    workload = trace_workload(lengths, 2, DeclaredRule.TRUTH, np.random.default_rng(0))
    specs = tuple(
        PoolSpec(f"{context}", 1, replace(LIMITS, context_tokens=context, shortens_outputs=True), COST)
        for context in (1_024, 8_192)
    )
    run = simulate(workload, specs, _ToTheFirst(workload, pools))
    assert run.pool.tolist() == [0, 1]
    assert run.truncated.tolist() == [True, False]
    assert run.misrouted.tolist() == [False, True]


class _ToTheFirst(OracleRouter):
    """A router that takes every request for short."""

    def __init__(self, workload: Workload, pools: Pools) -> None:
        super().__init__(workload, pools)
        self._place = [0] * len(workload)


@pytest.mark.parametrize(
    ("engine", "found"), [("vllm-0.32", True), ("vllm-0.18", False), ("sglang-0.5.23", False)]
)
def test_generous_clients_fit_one_pool_of_the_engine_that_shortens(engine: str, found: bool) -> None:  # noqa: FBT001
    """Prompts of up to 6,000 tokens that declare 4,096 and need 400 are all answered in 8,192 by vLLM 0.32."""
    rng = np.random.default_rng(0)
    lengths = Lengths(rng.integers(200, 6_000, 2_000), rng.integers(20, 400, 2_000), "test")
    options = ProfileOptions("llama-3-8b", "h100-80g", 1, long_context=8_192, times="roofline", engine=engine)
    design = Design("one pool", (8_192,))
    task = SearchTask(design, setup_of(options, built_in()), lengths, DeclaredRule.FIXED_4096, 5, 2_000, 1)
    if found:
        assert smallest_fleets(task)[0].summary.success == 1.0
    else:
        with pytest.raises(ObjectiveNotMet, match=r"do not fit 8,192 tokens with the output that they declare"):
            smallest_fleets(task)
