"""Spillover in the simulated fleet: a burst on one pool, with and without the router's own policy."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.ema import EmaEstimator
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.placing.policy import Pool, Pools
from extproc.core.placing.spill import SpillSettings
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.hardware.roofline import IterationCost
from extproc.planning.model.options import ProfileOptions, setup_of
from extproc.planning.model.throughput import InstanceLimits
from extproc.planning.simulation import search
from extproc.planning.simulation.fleet import FleetRun, simulate
from extproc.planning.simulation.options import SimulationOptions, runs_of
from extproc.planning.simulation.pool import PoolSpec
from extproc.planning.simulation.routers import LearningRouter
from extproc.planning.simulation.shrinking import shrunk
from extproc.planning.simulation.spilling import SimulatedSpill
from extproc.planning.simulation.task import Design, SearchTask
from extproc.planning.simulation.verdict import Miss, Verdict
from extproc.planning.workload.arrivals import Workload
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.lengths import Lengths
from extproc.planning.workload.texts import draw_texts

COST = IterationCost(tuple(0.02 + 0.0001 * n for n in range(513)), 1e-8, 1e-9)
# The short pool's context exceeds its threshold, so some long requests may spill into it.
POOLS = Pools([Pool("short", 1_024, 1_536), Pool("long", 8_192)])
SPECS = (
    PoolSpec("short", 2, InstanceLimits(16, 512, 65_536, 1_536), COST),
    PoolSpec("long", 2, InstanceLimits(16, 512, 65_536, 8_192), COST),
)
BEGINS_S, ENDS_S, OVER_S = 30.0, 50.0, 90.0
USUAL_PER_S = (6.0, 1.5)  # of short and long requests
BURST_PER_S = (40.0, 20.0)


def burst(hot: int, seed: int = 1) -> Workload:
    """Return an open loop in which one pool (0 short, 1 long) gets several times its capacity for 20 s."""
    rng = np.random.default_rng(seed)
    spans = [(0.0, BEGINS_S, False), (BEGINS_S, ENDS_S, True), (ENDS_S, OVER_S, False)]
    arrivals: list[tuple[float, int]] = []
    for start, end, bursts in spans:
        for pool in (0, 1):
            rate = (BURST_PER_S if bursts and pool == hot else USUAL_PER_S)[pool]
            at_s = start + np.cumsum(rng.exponential(1 / rate, int(rate * (end - start))))
            arrivals += [(float(each), pool) for each in at_s if each < end]
    arrivals.sort()
    long = np.array([pool for _, pool in arrivals], bool)
    size = len(arrivals)
    # Half of the long requests certainly fit the short pool's context.
    prompt = np.where(long, rng.choice([1_200, 2_500], size), rng.integers(50, 400, size))
    output = np.where(long, 60, rng.integers(20, 100, size))
    texts = draw_texts(prompt, rng)
    return Workload(np.array([at for at, _ in arrivals]), prompt, output, output, texts)


def run(workload: Workload, *, spill: bool) -> FleetRun:
    """Run the workload through two pools."""
    policy = SimulatedSpill(POOLS, SpillSettings(enabled=True)) if spill else None
    router = LearningRouter(workload, POOLS, EmaEstimator(EstimatorSettings()), sample=10**9, spill=policy)
    return simulate(workload, SPECS, router)


def homes(workload: Workload) -> npt.NDArray[np.int64]:
    """Return the pool to which each request belongs by its true length."""
    return (workload.prompt + workload.output > POOLS.ascending[0].max_budget_tokens).astype(np.int64)


def p99_s(result: FleetRun, mine: npt.NDArray[np.bool_]) -> float:
    """Return the 99th percentile of the time to first token of the selected requests."""
    return float(np.percentile(result.ttft_s[mine], 99))


@pytest.mark.parametrize("hot", [0, 1], ids=["short is hot", "long is hot"])
def test_a_burst_on_one_pool_is_shared_and_costs_the_other_pool_less(hot: int) -> None:
    """The hot pool's P99 falls by more than the cold one's rises, and each moved request fits where it goes."""
    workload = burst(hot)
    without, spilled = run(workload, spill=False), run(workload, spill=True)
    of_hot = homes(workload) == hot
    hot_before, cold_before = p99_s(without, of_hot), p99_s(without, ~of_hot)
    hot_after, cold_after = p99_s(spilled, of_hot), p99_s(spilled, ~of_hot)
    print(  # noqa: T201  (the figures are the point of the test)
        f"P99 TTFT without spill-over and with it: hot pool {hot_before:.2f} and {hot_after:.2f} s, "
        f"cold pool {cold_before:.2f} and {cold_after:.2f} s"
    )
    assert hot_after < hot_before
    assert cold_after - cold_before < hot_before - hot_after
    moved = (spilled.pool != homes(workload)) & of_hot
    assert moved.sum() > 50
    held = np.array([pool.context_tokens for pool in POOLS.ascending])[spilled.pool]
    assert (workload.prompt + workload.output <= held)[moved].all()
    assert not (spilled.misrouted | spilled.truncated | np.isnan(spilled.ttft_s))[moved].any()


def test_requests_return_within_ten_seconds_of_the_overload() -> None:
    """Once the hot pool's queue has drained, its requests go there again."""
    workload = burst(0)
    spilled = run(workload, spill=True)
    at_home = spilled.pool == homes(workload)
    waited = (spilled.ttft_s > 1) & at_home & (spilled.pool == 0)
    drained_s = float((workload.arrival_s + spilled.ttft_s)[waited].max())
    left_last_s = float(workload.arrival_s[(spilled.pool == 1) & ~at_home].max())
    print(f"queue gone at {drained_s:.1f} s, the last request left at {left_last_s:.1f} s")  # noqa: T201  (as above)
    assert drained_s < OVER_S - 10
    assert left_last_s < drained_s + 10


def test_without_overload_no_request_moves() -> None:
    """At the usual rates both runs place every request in the same pool."""
    rng = np.random.default_rng(1)
    size = 600
    prompt, output = rng.integers(50, 400, size), rng.integers(20, 100, size)
    workload = Workload(np.cumsum(rng.exponential(1 / 6, size)), prompt, output, output, draw_texts(prompt, rng))
    assert (run(workload, spill=True).pool == run(workload, spill=False).pool).all()


def test_the_oracle_knows_no_loads() -> None:
    """Spillover with the oracle is refused in one sentence."""
    one = Lengths(np.ones(1, np.int64), np.ones(1, np.int64), "t")
    with pytest.raises(ConfigurationError, match="--spill"):
        runs_of(SimulationOptions(router="oracle", spill=True), one, 100)


@given(
    needs=st.lists(st.integers(1, 40), min_size=2, max_size=3),
    extra=st.lists(st.integers(0, 30), min_size=3, max_size=3),
)
def test_a_fleet_that_spills_has_no_pool_that_can_be_smaller(needs: list[int], extra: list[int]) -> None:
    """Whichever sizes the search begins with, and although pools help each other: no pool can lose an instance."""

    def passes(sizes: tuple[int, ...]) -> bool:
        lacks = sum(max(0, need - size) for need, size in zip(needs, sizes, strict=True))
        spare = sum(max(0, size - need) for need, size in zip(needs, sizes, strict=True))
        return 2 * lacks <= spare

    begun = tuple(need + more for need, more in zip(needs, extra, strict=False))
    found = shrunk(begun, [1.0] * len(begun), passes)
    assert passes(found)
    for index, size in enumerate(found):
        assert size == 1 or not passes((*found[:index], size - 1, *found[index + 1 :]))


def test_the_costliest_pool_is_made_smaller_first_and_in_growing_steps() -> None:
    """Which pool takes the place of which is a question of cost; and each fleet that is asked for is a run of its
    own, with at least one instance in each pool.
    """
    asked: list[tuple[int, ...]] = []

    def passes(sizes: tuple[int, ...]) -> bool:
        asked.append(sizes)
        return sum(sizes) >= 1_004

    assert shrunk((1_000, 1_000), [1.0, 2.0], passes) == (1_000, 4)
    assert shrunk((1_000, 1_000), [2.0, 1.0], passes) == (4, 1_000)
    assert shrunk((1_004, 3), [1.0, 2.0], passes) == (1_004, 1)
    assert len(asked) < 80
    assert min(map(min, asked)) == 1


@pytest.mark.parametrize(("spill", "size"), [(True, (2, 3)), (False, (2, 4))])
def test_a_pool_is_not_too_small_because_its_neighbour_was(
    spill: bool,  # noqa: FBT001
    size: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three long instances fail beside one short one, whose requests they get late, and pass beside two. Without
    spillover the pools are independent, and what failed once is not tried again.
    """

    def run_of(_: object, __: object, sizes: tuple[int, int], ___: object) -> SimpleNamespace:
        return SimpleNamespace(sizes=sizes, success=1.0, too_short=False)

    def judged(run: SimpleNamespace, _: object) -> Verdict:
        short, long = run.sizes
        enough = short >= 2 or long >= 5
        passed = (enough, long >= 3 and (enough or long >= 4))
        return Verdict(passed, () if all(passed) else (Miss("P99", "9 s", "1 s"),), (False, False))

    for name, stated in {"run_fleet": run_of, "run_unless_hopeless": run_of, "verdict": judged}.items():
        monkeypatch.setattr(search, name, stated)
    monkeypatch.setattr(search, "_start", lambda _: (1, 3))
    lengths = Lengths(np.full(99, 500), np.full(99, 50), "alike")
    setup = setup_of(ProfileOptions(model="llama-3-8b", tp=1, times="roofline"), built_in())
    design = Design("two pools", (2_048, 65_536))
    task = SearchTask(design, setup, lengths, DeclaredRule.TRUTH, 9.0, 99, 1, longest=99, spill=spill)
    (found,) = search.smallest_fleets(task)
    assert size == found.instances
    assert size == cast("Any", found.summary).sizes
