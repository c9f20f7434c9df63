"""Each design is tuned as far as possible before designs are compared: parallelism, knobs, thresholds."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from extproc.planning.design import choose, plan, pool, rules
from extproc.planning.design.choose import Question, Sized, omitted_notes, sized_designs
from extproc.planning.design.pool import PoolChoice, PoolTask, Tuning, best_pool
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.hardware.instance import Instance
from extproc.planning.model.objective import LengthClass, Objective
from extproc.planning.model.setup import Setup, SlotRule
from extproc.planning.model.splits import Analysis
from extproc.planning.simulation.balancing import Balance, Balancing
from extproc.planning.simulation.cache import ResultCache, fingerprint
from extproc.planning.simulation.options import RunOptions
from extproc.planning.simulation.search import FoundFleet, ObjectiveNotMet, rough_fleet
from extproc.planning.simulation.task import Design, SearchTask, make_workload, run_fleet
from extproc.planning.simulation.verdict import verdict
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.lengths import Lengths

NOTHING = Tuning(parallelism=False, knobs=False)
OBJECTIVE = Objective(30.0, 0.08, 0.999, (LengthClass(8192, 1.0, 0.08),))


@pytest.fixture(scope="module")
def lengths() -> Lengths:
    """Return short requests with one in ten of 30,000 tokens."""
    rng = np.random.default_rng(0)
    prompt = np.where(rng.random(3000) < 0.1, 30_000, rng.integers(100, 1500, 3000))
    return Lengths(prompt, rng.geometric(1 / 100, 3000), "documents among chat")


@pytest.fixture(autouse=True, scope="module")
def searched_once() -> Iterator[None]:
    """Keep what the search finds without knobs: most tests here begin with the same ones, which take seconds."""
    found: dict[str, FoundFleet] = {}

    def kept(task: SearchTask) -> FoundFleet:
        key = fingerprint(task, "")
        if key not in found:
            found[key] = rough_fleet(task)
        return found[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "rough_fleet", kept)
        yield


def setup() -> Setup:
    """Return Llama-3-8B on an H100, with a price."""
    catalogue = built_in()
    instance = Instance(catalogue.model("llama-3-8b"), catalogue.gpu("h100-80g"), 1)
    return Setup("llama-3-8b", "h100-80g", instance, 65_536, OBJECTIVE, price_usd_h=2.0)


def pool_task(lengths: Lengths, tuning: Tuning, rate: float = 10) -> PoolTask:
    """Return the search for one pool that serves all requests."""
    balancing = Balancing(Balance.FULL_SCAN)
    return PoolTask(lengths, rate, 65_536, setup(), OBJECTIVE, DeclaredRule.TRUTH, balancing, tuning)


def test_tuning_never_costs_more_and_its_fleet_meets_the_objective(lengths: Lengths) -> None:
    """From the defaults on one GPU to parallelism to knobs, each step is at least as cheap as the one before."""
    plain, parallel, tuned = (
        best_pool(pool_task(lengths, Tuning(parallelism=a, knobs=b)))
        for a, b in ((False, False), (True, False), (True, True))
    )
    assert plain is not None
    assert parallel is not None
    assert tuned is not None
    assert plain.cost >= parallel.cost >= tuned.cost
    assert tuned.cost == tuned.gpus * 2.0


def test_a_threshold_for_long_prompts_is_found_if_it_helps(lengths: Lengths) -> None:
    """In a single pool long prompts stall short ones:
    long_prefill_token_threshold saves instances, and the flags name it.
    """
    tuned = best_pool(pool_task(lengths, Tuning(parallelism=False), rate=20))
    plain = best_pool(pool_task(lengths, Tuning(parallelism=False, knobs=False), rate=20))
    assert tuned is not None
    assert plain is not None
    assert tuned.instances < plain.instances
    flags = " ".join(tuned.setup.flags(65_536))
    assert tuned.setup.long_prefill_tokens > 0
    assert f"--long-prefill-token-threshold {tuned.setup.long_prefill_tokens}" in flags
    assert "--tensor-parallel-size 1" in flags
    assert "--max-model-len 65536" in flags


def test_pools_searched_one_by_one_pass_as_one_fleet(lengths: Lengths) -> None:
    """The best pools together, with 4 % added for the search's tolerance, meet the objective as one fleet."""
    question = Question(
        lengths, 30, setup(), DeclaredRule.TRUTH, Balancing(Balance.FULL_SCAN), Tuning(knobs=False), 1.25
    )
    two = sized_designs(question, [(4096, 65_536)], 1, ResultCache(None), lambda *_: None)[0]
    design = two.design("two", question)
    assert design.model_lens == (5120, 65_536)

    task = SearchTask(design, setup(), lengths, DeclaredRule.TRUTH, 30, 6000, 1, "oracle", question.balancing)
    sizes = tuple(int(np.ceil(1.04 * pool.instances)) + 1 for pool in two.pools)
    assert verdict(run_fleet(task, make_workload(task, 1), sizes), OBJECTIVE).misses == ()


def test_the_search_is_cached_by_its_inputs(
    lengths: Lengths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second search of the same question only reads the cache, and finds the same; the first one says from the
    start what it does.
    """
    cache = ResultCache(tmp_path)
    question = Question(
        lengths, 10, setup(), DeclaredRule.TRUTH, Balancing(Balance.FULL_SCAN), Tuning(knobs=False)
    )
    seen: list[tuple[int, int, str]] = []
    first = sized_designs(question, [(65_536,)], 1, cache, lambda *said: seen.append(said))
    assert (0, 1, "the best pool for each range of tokens") == seen[0]

    def never(_: PoolTask) -> None:
        pytest.fail("searched again")

    monkeypatch.setattr(choose, "best_pool", never)
    assert first == sized_designs(question, [(65_536,)], 1, cache, lambda *_: None)


def test_a_pool_that_gets_almost_no_requests_is_not_a_design(lengths: Lengths) -> None:
    """A threshold above every request leaves the long pool empty, which is one pool by another name."""
    question = Question(lengths, 10, setup(), DeclaredRule.TRUTH, Balancing(), Tuning(knobs=False))
    assert [] == sized_designs(question, [(60_000, 65_536)], 1, ResultCache(None), lambda *_: None)


def test_each_pool_takes_the_gpu_that_is_cheapest_for_it(lengths: Lengths) -> None:
    """Of the same GPU at two prices the cheaper one is chosen, and its price is counted."""
    gpu = built_in().gpu("h100-80g")
    tuning = Tuning(parallelism=False, knobs=False, gpus=(("dear", gpu, 3.0), ("cheap", gpu, 1.0)))
    found = best_pool(pool_task(lengths, tuning))
    assert found is not None
    assert found.setup.gpu_name == "cheap"
    assert found.cost == found.gpus * 1.0


def test_the_cost_model_s_batch_is_of_its_own_instance(lengths: Lengths, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search of a pool begins with the best batch of each instance, and the untuned pool has the engine's;
    where nothing is searched, an instance keeps that of the plan.
    """
    planned = replace(setup(), best_batch_tokens=128)
    largest = replace(planned, best_batch_tokens=None).max_batched_tokens
    assert planned.max_batched_tokens == 128
    assert plan._usual(planned, 65_536).limits(0, planned).max_num_batched_tokens > largest
    found = {None: 256, 128: 64}
    monkeypatch.setattr(
        pool, "with_best_batch", lambda _, each: replace(each, best_batch_tokens=found[each.best_batch_tokens])
    )
    for tuning, batch in (
        (Tuning(), 256),
        (Tuning(parallelism=False), 256),
        (Tuning(knobs=False), 256),
        (Tuning(parallelism=False, knobs=False), 128),
    ):
        task = replace(pool_task(lengths, tuning), setup=planned)
        first = next(each for each in pool._parallel(task) if each.instance == planned.instance)
        assert batch == first.max_batched_tokens
        kept = choose._Kept.of(PoolChoice(first, 1, 2.0)).choice(task)
        assert kept is not None
        assert batch == kept.setup.max_batched_tokens


KNOBS = {
    "--long-prefill-token-threshold 1024": ("long_prefill_tokens", 1024),
    "--max-num-seqs 64": ("max_num_seqs", (64, 64)),
    "--max-num-batched-tokens 1024": ("batched_tokens", 1024),
}


@pytest.mark.parametrize("flag", KNOBS)
def test_a_knob_that_saves_instances_is_taken_and_named(
    flag: str, lengths: Lengths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stated fleets need ten instances without the knob and seven with it."""
    name, value = KNOBS[flag]
    task = pool_task(lengths, Tuning(parallelism=False))
    task = replace(task, setup=replace(task.setup, batched_tokens=None if name == "batched_tokens" else 2048))

    def run(search: SearchTask, _: object, sizes: tuple[int, ...], __: object) -> bool:
        return sizes[0] >= (7 if getattr(search.design.setup(0, search.setup), name) == value else 10)

    monkeypatch.setattr(pool, "rough_fleet", lambda _: SimpleNamespace(total=10, requests=3_000))
    monkeypatch.setattr(pool, "run_unless_hopeless", run)
    monkeypatch.setattr(pool, "verdict", lambda enough, _: SimpleNamespace(passed=(enough,)))
    found = best_pool(task)
    assert found is not None
    assert (7, 7 * 2.0) == (found.instances, found.cost)
    assert flag in found.setup.flags(65_536)


def test_a_batch_is_halved_for_as_long_as_that_saves_instances(
    lengths: Lengths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stated fleets need ten instances with 2,048 tokens, nine with 1,024, and eight with 512 and less."""
    needed = {2_048: 10, 1_024: 9}

    def run(search: SearchTask, _: object, sizes: tuple[int, ...], __: object) -> bool:
        return sizes[0] >= needed.get(search.design.setup(0, search.setup).max_batched_tokens, 8)

    monkeypatch.setattr(pool, "rough_fleet", lambda _: SimpleNamespace(total=10, requests=3_000))
    monkeypatch.setattr(pool, "run_unless_hopeless", run)
    monkeypatch.setattr(pool, "verdict", lambda enough, _: SimpleNamespace(passed=(enough,)))
    monkeypatch.setattr(pool, "_knobs", lambda _: iter(()))
    monkeypatch.setattr(pool, "with_best_batch", lambda _, each: replace(each, best_batch_tokens=2_048))
    found = best_pool(pool_task(lengths, Tuning(parallelism=False)))
    assert found is not None
    assert (8, 512) == (found.instances, found.setup.max_batched_tokens)


def test_batches_up_to_the_engine_s_default_are_tried(lengths: Lengths, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stated fleets need ten instances, and nine with the largest batch, 64 times the one that is best by the
    cost model.
    """
    task = pool_task(lengths, Tuning(parallelism=False))
    most = task.setup.largest_batch_tokens

    def run(search: SearchTask, _: object, sizes: tuple[int, ...], __: object) -> bool:
        return sizes[0] >= (9 if search.design.setup(0, search.setup).max_batched_tokens == most else 10)

    monkeypatch.setattr(pool, "rough_fleet", lambda _: SimpleNamespace(total=10, requests=3_000))
    monkeypatch.setattr(pool, "run_unless_hopeless", run)
    monkeypatch.setattr(pool, "verdict", lambda enough, _: SimpleNamespace(passed=(enough,)))
    monkeypatch.setattr(pool, "with_best_batch", lambda _, each: replace(each, best_batch_tokens=most // 64))
    found = best_pool(task)
    assert found is not None
    assert (9, most) == (found.instances, found.setup.max_batched_tokens)


@pytest.mark.parametrize(("tuning", "batch"), [(Tuning(parallelism=False), 2_048), (NOTHING, None)])
def test_where_the_best_batch_misses_the_objective_the_largest_is_tried(
    lengths: Lengths, monkeypatch: pytest.MonkeyPatch, tuning: Tuning, batch: int | None
) -> None:
    """The cost model does not know how long prompts wait for small chunks. Where nothing is searched, an instance
    keeps the plan's batch.
    """
    tried = []

    def rough(search: SearchTask) -> SimpleNamespace:
        tried.append(search.design.setup(0, search.setup).max_batched_tokens)
        if tried[-1] < 2_048:
            raise ObjectiveNotMet("late")
        return SimpleNamespace(total=10, requests=3_000)

    monkeypatch.setattr(pool, "rough_fleet", rough)
    monkeypatch.setattr(pool, "_knobs", lambda _: iter(()))
    monkeypatch.setattr(pool, "_with", lambda _, best, *__: best)
    monkeypatch.setattr(pool, "with_best_batch", lambda _, each: replace(each, best_batch_tokens=512))
    task = pool_task(lengths, tuning)
    found = best_pool(replace(task, setup=replace(task.setup, best_batch_tokens=256)))
    assert batch == (None if found is None else found.setup.max_batched_tokens)
    assert tried == ([256] if batch is None else [512, batch])


def test_head_room_keeps_requests_in_the_short_pool_and_costs_no_slots(lengths: Lengths) -> None:
    """Without head-room, a request whose likeliest length is within the threshold but whose bound is
    not makes a detour. With paged blocks the longer max_model_len costs nothing; if each sequence
    reserves it, it costs a fifth of the slots.
    """
    balancing = Balancing()
    question = Question(lengths, 10, setup(), DeclaredRule.TRUTH, balancing, Tuning())
    narrow, wide = ((each, choose._fits(each)(1_024)) for each in (question, replace(question, head_room=1.25)))
    assert (1_024, 1_280) == (narrow[0].model_len(1_024), wide[0].model_len(1_024))
    likeliest = float((lengths.total <= 1_024).mean())
    assert narrow[1].mean() < likeliest - 0.05
    assert likeliest == pytest.approx(wide[1].mean(), abs=0.01)

    def places(slots: SlotRule, threshold: int) -> list[int]:
        base = replace(setup(), slots=slots)
        return [base.limits(each.model_len(threshold), short=True).max_num_seqs for each in (narrow[0], wide[0])]

    paged, reserved = places(SlotRule.PAGED, 4_096), places(SlotRule.WORST_CASE, 4_096)
    assert paged[0] == paged[1]
    assert reserved[1] == pytest.approx(reserved[0] / 1.25, rel=0.02)


def test_three_pools_are_searched_at_each_pair_of_thresholds(
    lengths: Lengths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cheapest design for each number of pools is simulated as a fleet, alongside
    one pool with defaults and one tuned pool.
    """
    question = Question(lengths, 10, setup(), DeclaredRule.TRUTH, Balancing(), Tuning(), 1.25)

    def sized(_: Question, limits: Sequence[tuple[int, ...]], *__: object) -> list[Sized]:
        costs = [9.0 if each in {(2_048, 65_536), (512, 2_048, 65_536)} else 10.0 for each in limits]
        return [
            Sized(each, tuple(PoolChoice(setup(), 1, cost / len(each)) for _ in each))
            for each, cost in zip(limits, costs, strict=True)
        ]

    monkeypatch.setattr(rules, "sized_designs", sized)
    monkeypatch.setattr(plan, "_thresholds", lambda *_: (512, 2_048, 8_192))
    runs = RunOptions(2_000, 2_000, 1, (), "oracle", Balancing(), "poisson", 1)
    designs, searched = plan._designs(
        question,
        cast("Analysis", None),
        plan.PlanOptions(runs, pools=3),
        ResultCache(None),
        lambda *_: None,
    )
    assert ["one pool, vLLM's defaults", "one pool of 65,536, tuned"] == [each.name for each in designs[:2]]
    assert ["two pools at 2,048", "three pools at 512 and 2,048"] == [each.name for each in designs[2:]]
    assert 1 + 3 + 3 == len(searched)
    assert (640, 2_560, 65_536) == designs[3].model_lens


def test_gpus_are_compared_where_nothing_else_is_searched(
    lengths: Lengths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the GPUs per instance and the batch given, each pool still takes its cheapest GPU."""
    tuning = Tuning(parallelism=False, knobs=False, gpus=(("other", built_in().gpu("h200"), 1.0),))
    question = Question(lengths, 10, setup(), DeclaredRule.TRUTH, Balancing(), tuning)
    asked: list[Tuning] = []

    def sized(asks: Question, limits: Sequence[tuple[int, ...]], *_: object) -> list[Sized]:
        asked.append(asks.tuning)
        return [Sized(each, tuple(PoolChoice(setup(), 1, 2.0) for _ in each)) for each in limits]

    monkeypatch.setattr(rules, "sized_designs", sized)
    runs = RunOptions(2_000, 2_000, 1, (2_048,), "oracle", Balancing(), "poisson", 1)
    options = plan.PlanOptions(runs, tuning)
    _, searched = plan._designs(question, cast("Analysis", None), options, ResultCache(None), lambda *_: None)
    assert ([tuning], 2) == (asked, len(searched))


def test_a_threshold_that_only_three_pools_have_is_named() -> None:
    """Above it two pools have one pool for all requests, which may serve none in time where two of them do."""
    designs = [Design("1", (65_536,)), Design("2", (4_096, 65_536)), Design("3", (4_096, 16_384, 65_536))]
    designs.append(Design("3", (8_192, 16_384, 65_536)))
    [note] = omitted_notes((4_096, 8_192, 16_384), designs)
    assert note.startswith("Two pools at 8,192, 16,384 are not simulated: ")
    assert [] == omitted_notes((4_096,), designs)
