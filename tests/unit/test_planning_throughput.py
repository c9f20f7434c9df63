"""The cost model's rate for one instance: prompts of many chunks, short outputs, objectives out of reach."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from extproc.planning.hardware.catalogue import built_in
from extproc.planning.hardware.instance import Instance
from extproc.planning.model.analytic import analyse
from extproc.planning.model.objective import Objective
from extproc.planning.model.setup import Setup
from extproc.planning.model.throughput import throughput
from extproc.planning.simulation.search import smallest_fleets
from extproc.planning.simulation.task import Design, SearchTask
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.lengths import Lengths

CATALOGUE = built_in()
CONTEXT = 65_536


def setup(model: str = "llama-3-8b", gpu: str = "h100-80g", gpus: int = 1, ttft_s: float = 2.0) -> Setup:
    """Return an instance of the catalogue at a context of 65,536 tokens, without spares."""
    instance = Instance(CATALOGUE.model(model), CATALOGUE.gpu(gpu), gpus)
    return Setup(model, gpu, instance, CONTEXT, Objective(ttft_s=ttft_s), spare=0)


def alike(prompt: int, output: int) -> Lengths:
    """Return a workload of identical requests."""
    return Lengths(np.array([prompt]), np.array([output]), "alike")


def rate(plan: Setup, work: Lengths) -> float:
    """Return the usable requests per second of an instance."""
    return throughput(work, plan.cost, plan.limits(CONTEXT), plan.objective.tpot_s).requests_per_s


@pytest.mark.parametrize(("prompt", "output"), [(6_000, 1), (12_000, 1), (12_000, 3), (50_000, 2)])
def test_no_instance_prefills_faster_than_its_prefill(prompt: int, output: int) -> None:
    """The rate is at most that of prefill in full batches, and not far below it if almost nothing decodes."""
    plan = setup()
    tokens = plan.max_batched_tokens
    batch_s = plan.cost.mixed_s(0, 0, tokens, tokens * prompt / 2)
    bound = 0.9 * tokens / (prompt * batch_s)
    assert 0.85 * bound < rate(plan, alike(prompt, output)) <= bound * 1.0001


def test_the_rate_falls_smoothly_with_the_length_of_prompts() -> None:
    """Longer prompts cost in proportion to their tokens, within a tenth: a
    batch is not limited to complete sequences.
    """
    plan = setup()
    rates = [rate(plan, alike(prompt, 4)) for prompt in range(400, 12_000, 100)]
    lengths = range(500, 12_000, 100)
    # A slightly longer prompt may take one more chunk, which reads the weights once more.
    assert all(
        after > 0.9 * before * (length - 100) / length
        for (before, after), length in zip(pairwise(rates), lengths, strict=True)
    )


def test_a_few_long_prompts_do_not_make_a_plan_impossible() -> None:
    """Prompts of 60,000 tokens have a slow first token, but are as fast as others between tokens."""
    rng = np.random.default_rng(0)
    prompt = np.where(rng.random(4000) < 0.005, 60_000, rng.integers(200, 2000, 4000))
    work = Lengths(prompt, rng.integers(50, 300, 4000), "tail")
    analysis = analyse(work, 100, setup("llama-3-70b", "a100-80g", 8), DeclaredRule.TRUTH, (4096, 8192))
    assert [split.threshold for split in analysis.splits] == [4096, 8192]


def test_an_answer_of_one_token_has_no_time_between_tokens() -> None:
    """The objective on the time per output token does not apply to requests with a single output token."""
    plan = setup()
    strict = throughput(alike(12_000, 1), plan.cost, plan.limits(CONTEXT), 0.001)
    assert strict.requests_per_s == rate(plan, alike(12_000, 1)) > 0


def test_a_threshold_whose_long_pool_cannot_meet_the_objective_is_left_out() -> None:
    """If only long requests decode too slowly, one pool remains feasible; such thresholds are listed."""
    work = Lengths(np.array([100] * 99 + [60_000]), np.array([100] * 100), "tail")
    plan = setup()
    single = [plan.cost.decode_run_s(1, context, 1) for context in (650, 60_000)]
    between = replace(plan, objective=Objective(tpot_s=sum(single) / 2), batched_tokens=plan.max_batched_tokens)
    assert single[0] < between.objective.tpot_s < single[1]
    analysis = analyse(work, 10, between, DeclaredRule.NONE, (64, 8192))
    assert (analysis.out_of_reach, [split.threshold for split in analysis.splits]) == ((8192,), [64])


@pytest.mark.parametrize(("prompt", "output"), [(12_000, 1), (12_000, 3), (3_000, 2)])
def test_prefill_heavy_fleets_are_near_the_simulated_ones(prompt: int, output: int) -> None:
    """For long prompts and short outputs, both models need the same number of instances within 20 %."""
    plan, work = setup(ttft_s=4.0), alike(prompt, output)
    one = 50 / rate(plan, work)
    task = SearchTask(Design("one pool", (CONTEXT,)), plan, work, DeclaredRule.TRUTH, 50, 2_500, seeds=1)
    assert smallest_fleets(task)[0].total == pytest.approx(one, rel=0.2)
