"""Each design is made as good as it gets before they are compared: parallelism, knobs, thresholds."""

from dataclasses import replace

import numpy as np
import pytest

from extproc.planning.design.choose import Question, sized_designs
from extproc.planning.design.pool import PoolTask, Tuning, best_pool
from extproc.planning.hardware.capacity import Instance
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.model.objective import LengthClass, Objective
from extproc.planning.model.setup import Setup
from extproc.planning.simulation.balancing import Balance, Balancing
from extproc.planning.simulation.cache import ResultCache
from extproc.planning.simulation.task import SearchTask, make_workload, run_fleet
from extproc.planning.simulation.verdict import verdict
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.lengths import Lengths

OBJECTIVE = Objective(30.0, 0.08, 0.999, (LengthClass(8192, 1.0, 0.08),))


@pytest.fixture(scope="module")
def lengths() -> Lengths:
    """Return short requests with one in ten of 30,000 tokens."""
    rng = np.random.default_rng(0)
    prompt = np.where(rng.random(3000) < 0.1, 30_000, rng.integers(100, 1500, 3000))
    return Lengths(prompt, rng.geometric(1 / 100, 3000), "documents among chat")


def setup() -> Setup:
    """Return Llama-3-8B on an H100, with a price."""
    catalogue = built_in()
    instance = Instance(catalogue.model("llama-3-8b"), catalogue.gpu("h100-80g"), 1)
    return Setup("llama-3-8b", "h100-80g", instance, 65_536, OBJECTIVE, price_usd_h=2.0)


def pool_task(lengths: Lengths, tuning: Tuning, rate: float = 10) -> PoolTask:
    """Return the search of one pool of everything."""
    balancing = Balancing(Balance.FULL_SCAN)
    return PoolTask(lengths, rate, 65_536, setup(), OBJECTIVE, DeclaredRule.TRUTH, balancing, tuning)


def test_tuning_never_costs_more_and_its_fleet_meets_the_objective(lengths: Lengths) -> None:
    """One GPU and the defaults, parallelism, knobs: each step is at least as cheap, and the last one's fleet
    passes.
    """
    plain, parallel, tuned = (
        best_pool(pool_task(lengths, Tuning(parallelism=a, knobs=b)))
        for a, b in ((False, False), (True, False), (True, True))
    )
    assert plain is not None
    assert parallel is not None
    assert tuned is not None
    assert plain.cost >= parallel.cost >= tuned.cost
    assert tuned.cost == tuned.gpus * 2.0


def test_a_threshold_for_long_prompts_is_found_where_it_helps(lengths: Lengths) -> None:
    """Long prompts stall short ones in one pool: long_prefill_token_threshold is worth instances, and is named."""
    tuned = best_pool(pool_task(lengths, Tuning(parallelism=False), rate=20))
    plain = best_pool(pool_task(lengths, Tuning(parallelism=False, knobs=False), rate=20))
    assert tuned is not None
    assert plain is not None
    assert tuned.instances < plain.instances
    flags = " ".join(tuned.setup.flags(65_536))
    assert "--tensor-parallel-size 1" in flags
    assert "--max-model-len 65536" in flags


def test_pools_searched_one_by_one_make_a_fleet_that_passes_whole(lengths: Lengths) -> None:
    """The sum of the best pools, with 4 % more for the tolerance of the search, meets the objective as one
    fleet.
    """
    question = Question(
        lengths, 30, setup(), DeclaredRule.TRUTH, Balancing(Balance.FULL_SCAN), Tuning(knobs=False), 1.25
    )
    two = sized_designs(question, [(4096, 65_536)], 1, ResultCache(None), lambda *_: None)[0]
    design = two.design("two", question)
    assert design.model_lens == (5120, 65_536)

    task = SearchTask(design, setup(), lengths, DeclaredRule.TRUTH, 30, 6000, 1, "oracle", question.balancing)
    sizes = tuple(int(np.ceil(1.04 * pool.instances)) + 1 for pool in two.pools)
    assert verdict(run_fleet(task, make_workload(task, 1), sizes), OBJECTIVE).misses == ()


def test_the_search_is_cached_by_its_inputs(lengths: Lengths, tmp_path: object) -> None:
    """A second search of the same question looks nothing up but the cache, and finds the same."""
    cache = ResultCache(tmp_path)  # type: ignore[arg-type]
    question = Question(
        lengths, 10, setup(), DeclaredRule.TRUTH, Balancing(Balance.FULL_SCAN), Tuning(knobs=False)
    )
    first = sized_designs(question, [(65_536,)], 1, cache, lambda *_: None)
    assert first == sized_designs(question, [(65_536,)], 1, cache, lambda *_: None)


def test_a_pool_that_gets_next_to_nothing_is_no_design(lengths: Lengths) -> None:
    """A threshold above every request leaves the long pool empty: that is one pool under another name."""
    question = Question(lengths, 10, setup(), DeclaredRule.TRUTH, Balancing(), Tuning(knobs=False))
    assert [] == sized_designs(question, [(60_000, 65_536)], 1, ResultCache(None), lambda *_: None)


def test_each_pool_takes_the_gpu_that_is_cheapest_for_it(lengths: Lengths) -> None:
    """Of the same GPU at two prices the cheaper is taken, and what it costs is counted."""
    gpu = built_in().gpu("h100-80g")
    tuning = Tuning(parallelism=False, knobs=False, gpus=(("dear", gpu, 3.0), ("cheap", gpu, 1.0)))
    found = best_pool(pool_task(lengths, tuning))
    assert found is not None
    assert found.setup.gpu_name == "cheap"
    assert found.cost == found.gpus * 1.0


def test_fewer_sequences_are_tried_and_named() -> None:
    """Short prompts with long answers: a batch of 1,024 misses a tight TPOT where one of fewer keeps it."""
    rng = np.random.default_rng(1)
    chat = Lengths(rng.integers(20, 60, 3000), rng.geometric(1 / 400, 3000), "chat")
    tight = Objective(20.0, 0.0125)
    task = PoolTask(
        chat,
        60,
        65_536,
        setup(),
        tight,
        DeclaredRule.TRUTH,
        Balancing(Balance.FULL_SCAN),
        Tuning(parallelism=False),
    )
    plain, tuned = best_pool(replace(task, tuning=Tuning(parallelism=False, knobs=False))), best_pool(task)
    assert plain is not None
    assert tuned is not None
    assert tuned.instances <= plain.instances
    if tuned.setup.max_num_seqs is not None:
        assert f"--max-num-seqs {tuned.setup.max_num_seqs[0]}" in " ".join(tuned.setup.flags(65_536))
