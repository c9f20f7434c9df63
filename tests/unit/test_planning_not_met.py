"""Designs that miss the objective next to designs that meet it, and the resulting recommendation."""

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from extproc.core.errors import ConfigurationError
from extproc.planning.design.plan import PlanOptions, make_plan
from extproc.planning.design.pool import Tuning
from extproc.planning.design.recommend import recommend, recommend_simulated
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.hardware.instance import Instance
from extproc.planning.model.analytic import analyse, break_even_rate
from extproc.planning.model.costs import Costs
from extproc.planning.model.objective import Objective
from extproc.planning.model.setup import Setup
from extproc.planning.model.splits import Analysis
from extproc.planning.simulation import search
from extproc.planning.simulation.balancing import Balance, Balancing
from extproc.planning.simulation.cache import ResultCache
from extproc.planning.simulation.options import RunOptions
from extproc.planning.simulation.runner import FleetEstimate, NotMet, search_all, search_each
from extproc.planning.simulation.search import FoundFleet, ObjectiveNotMet, smallest_fleets
from extproc.planning.simulation.summary import Summary
from extproc.planning.simulation.task import Design, SearchTask
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.lengths import Lengths

CATALOGUE = built_in()
LONG = 65_536
CACHE = ResultCache(None)
COSTS = Costs(gpus_per_instance=1, spare=0, usd_per_gpu_hour=2.0)


def setup(ttft_s: float) -> Setup:
    """Return Llama-3-8B on one H100, with a price and without spares."""
    instance = Instance(CATALOGUE.model("llama-3-8b"), CATALOGUE.gpu("h100-80g"), 1)
    return Setup("8B", "H100", instance, LONG, Objective(ttft_s=ttft_s), spare=0, price_usd_h=2.0)


def work() -> Lengths:
    """Return requests of which one in two hundred has a prompt of 30,000 tokens."""
    prompt = np.array([30_000] + [500] * 199)
    return Lengths(np.tile(prompt, 10), np.full(2_000, 100), "tail")


def task(name: str, contexts: tuple[int, ...], ttft_s: float = 0.9) -> SearchTask:
    """Return a search of one design."""
    return SearchTask(
        Design(name, contexts), setup(ttft_s), work(), DeclaredRule.TRUTH, 20, 2_000, 1, router="oracle"
    )


def options(threshold: int) -> PlanOptions:
    """Return a short simulation at one threshold, with nothing tuned."""
    runs = RunOptions(
        requests=2_000,
        longest=2_000,
        seeds=1,
        thresholds=(threshold,),
        router="oracle",
        balancing=Balancing(Balance.FULL_SCAN),
        arrivals="poisson",
        jobs=1,
    )
    return PlanOptions(runs, Tuning(parallelism=False, knobs=False))


def test_a_design_that_misses_the_objective_does_not_end_the_others() -> None:
    """The long pool of two is judged by its own requests, whose prefill alone is too slow; one pool passes."""
    one, two = search_each([task("one", (LONG,)), task("two", (4_096, LONG))], 1, CACHE, lambda *_: None)
    assert isinstance(one, FleetEstimate)
    assert isinstance(two, NotMet)
    assert "two: no fleet that was tried meets the objective; even with" in two.why
    assert "P99 TTFT" in two.why


def test_if_all_designs_must_pass_the_error_names_the_first_that_does_not() -> None:
    """search_all has no use for a partial answer."""
    tasks = [task("two", (4_096, LONG)), task("also two", (8_192, LONG))]
    with pytest.raises(ObjectiveNotMet, match=r"^two: no fleet"):
        search_all(tasks, 1, CACHE, lambda *_: None)


def test_a_plan_lists_designs_that_fail_and_recommends_among_the_rest() -> None:
    """Thresholds whose fleets miss the objective are listed in the plan's notes."""
    plan = make_plan(
        work(), 20, setup(0.9), DeclaredRule.TRUTH, options=options(4_096), cache=CACHE, progress=lambda *_: None
    )
    assert "no two pools are known to meet the objective" in plan.recommendation
    assert any("two pools at 4,096: no fleet that was tried meets the objective" in note for note in plan.notes)
    assert all(len(fleet.design.contexts) == 1 for fleet in plan.fleets)


def analysis() -> Analysis:
    """Return the cost model's analysis of a workload for which two pools pay at high rates."""
    rng = np.random.default_rng(0)
    prompt = np.where(rng.random(2_000) < 0.05, 20_000, 500)
    return analyse(
        Lengths(prompt, np.full(2_000, 200), "mix"), 400, setup(5.0), DeclaredRule.TRUTH, (2_048, 8_192)
    )


def test_no_sentence_says_to_keep_one_pool_at_a_rate_for_which_two_are_recommended() -> None:
    """Since instances are whole numbers, two pools may be better below the rate from which they always pay."""
    figures = analysis()
    best = replace(figures.best, short_instances=5, long_instances=3, break_even_rate=31.0)
    paying = replace(figures, rate=20.0, best=best, right_sized=replace(figures.right_sized, instances=9))
    assert "keep one pool" not in recommend(paying, setup(5.0))
    assert "8 instead of 9 GPUs, saves $18K a year" in recommend(paying, setup(5.0))  # at $2 an hour
    assert "; below 31 req/s keep one pool" in recommend(replace(paying, rate=40.0), setup(5.0))


def estimate(contexts: tuple[int, ...], totals: tuple[int, ...], half_width: float) -> FleetEstimate:
    """Return a simulated fleet of these sizes; nothing else about it matters."""
    parts = tuple(FoundFleet(Design("x", contexts), n, (total,), None, 1) for n, total in enumerate(totals))  # type: ignore[arg-type]
    return FleetEstimate(parts[0].design, parts, float(np.mean(totals)), half_width, parts[len(parts) // 2])


@pytest.mark.parametrize(
    ("two_totals", "half_width", "said"),
    [
        ((90, 90, 90), 0.5, "x (90 x 1 GPUs): 90 GPUs instead of 100, saves"),
        ((97, 98, 99), 2.5, "no difference beyond the noise"),
        (
            (99, 99, 99),
            float("nan"),
            "no difference beyond the noise",
        ),  # within the search's own tolerance
        ((101, 101, 101), 0.5, "x need 101 GPUs at best"),
    ],
)
def test_a_difference_within_the_noise_does_not_count(
    two_totals: tuple[int, ...], half_width: float, said: str
) -> None:
    """Two pools are recommended if they save more than seeds and search tolerance can account for."""
    one = estimate((LONG,), (100, 100, 100), half_width)
    two = estimate((4_096, LONG), two_totals, half_width)
    assert said in recommend_simulated([one, two], COSTS)


def test_a_fleet_with_a_gpu_of_unknown_price_has_no_price() -> None:
    """The price of its other pools would look like that of the fleet."""
    priced = setup(1)
    unpriced = replace(priced, price_usd_h=None)
    for setups, usd in (
        ((priced, priced), 5 * 2.0 * 8_760),
        ((priced, unpriced), None),
        ((unpriced, priced), None),
    ):
        design = Design("two", (4_096, LONG), setups=setups)
        found = FoundFleet(design, 0, (3, 2), None, 1)  # type: ignore[arg-type]
        assert usd == COSTS.of(FleetEstimate(design, (found,), 5.0, 0.0, found)).usd_per_year


def test_a_saving_is_stated_with_the_part_that_tuning_one_pool_saves() -> None:
    """Of the 110 instances that two pools save compared with the usual pool, a tuned
    pool saves 90; the sentence names its knob.
    """
    knob = replace(setup(1), long_prefill_tokens=256)
    usual, tuned, two = (
        replace(estimate(contexts, (total,) * 3, 0.5), design=Design(name, contexts, setups))
        for name, contexts, total, setups in (
            ("usual", (LONG,), 200, ()),
            ("tuned", (LONG,), 110, (knob,)),
            ("two", (4_096, LONG), 90, ()),
        )
    )
    said = recommend_simulated([usual, tuned, two], COSTS)
    assert "two (90 x 1 GPUs): 90 GPUs instead of 110, saves $350K a year" in said
    first = "first try tuned (110 x 1 GPUs with --long-prefill-token-threshold 256): 110 GPUs: it gives 82%"
    assert f"{first} of what they save on usual" in said


def test_all_designs_missing_is_one_error() -> None:
    """If not even one pool meets the objective, the plan has no answer."""
    lengths = replace(work(), output=np.where(np.arange(2_000) % 100 == 0, 5_000, 100))
    strict = replace(setup(5.0), long_context=5_000, objective=Objective(ttft_s=5.0, success=0.99999))
    with pytest.raises(ConfigurationError, match="no fleet meets it"):
        make_plan(
            lengths, 20, strict, DeclaredRule.NONE, options=options(64), cache=CACHE, progress=lambda *_: None
        )


def test_a_saving_from_rounding_does_not_count() -> None:
    """If the rates add up exactly, two pools pay at no rate, rather than
    at quadrillions of requests per second.
    """
    one = 2.5
    short, long = 4.0, (1 - 0.8) / (1 / one - 0.8 / 4.0)
    assert None is break_even_rate(0.8, (one, short, long * (1 + 1e-14)), spare=0)


def test_runs_too_short_for_a_pool_of_long_answers_refuse_no_fleet() -> None:
    """Outputs that take a minute pile up until the end of a run of 20 s with any number of instances.
    The error says that the run is too short.
    """
    lengths = Lengths(np.full(400, 50), np.where(np.arange(400) % 8 == 0, 4_000, 5), "long answers")
    short = replace(
        task("two", (512, LONG), 2.0), lengths=lengths, rate=100, balancing=Balancing(Balance.FULL_SCAN)
    )
    with pytest.raises(ObjectiveNotMet, match="runs of 2,000 requests are too short to judge") as refused:
        smallest_fleets(short)
    assert "the queue of pool 65,536 grows to the end" in str(refused.value)
    assert "(--requests)" in str(refused.value)


@pytest.mark.parametrize(
    ("tells_from", "longest", "why"),
    [
        (8_000, 32_000, ""),
        (8_000, 8_000, "only runs of 8,000 requests are long enough to judge"),
        (2_000, 2_000, ""),
        (2_000, 8_000, ""),
    ],
)
def test_longer_runs_are_conclusive_where_shorter_ones_only_grow(
    tells_from: int, longest: int, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search continues with runs four times as long; as always, two conclusive runs have to agree."""
    asked: list[int] = []

    def searched(question: SearchTask, *_: object) -> FoundFleet:
        asked.append(question.requests)
        if question.requests < tells_from:
            raise search._StillGrowsError("it grows")
        summary = cast("Summary", SimpleNamespace(too_short=False))
        return FoundFleet(question.design, 1, (3,), summary, 1, question.requests, "", 3)

    monkeypatch.setattr(search, "_search", searched)
    monkeypatch.setattr(search, "_start", lambda _: (1,))
    (found,) = smallest_fleets(replace(task("one", (LONG,)), longest=longest))
    assert why == found.not_steady
    assert asked == [2_000 * 4**n for n in range(len(asked))]


def test_runs_that_only_grow_to_the_longest_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error quotes the longest runs."""

    def never(question: SearchTask, *_: object) -> FoundFleet:
        raise search._StillGrowsError(f"{question.requests} grow")

    monkeypatch.setattr(search, "_search", never)
    monkeypatch.setattr(search, "_start", lambda _: (1,))
    with pytest.raises(ObjectiveNotMet, match="8000 grow"):
        smallest_fleets(replace(task("one", (LONG,)), longest=8_000))
