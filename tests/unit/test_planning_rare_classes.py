"""Rare classes of the objective: runs are long enough to judge them, or the plan says that they are not."""

from dataclasses import replace

import numpy as np
import pytest

from extproc.planning.design.notes import failure_notes, fleet_notes
from extproc.planning.design.recommend import recommend_simulated
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.hardware.instance import Instance
from extproc.planning.model.costs import costs_of
from extproc.planning.model.objective import LengthClass, Objective
from extproc.planning.model.setup import Setup
from extproc.planning.simulation.balancing import Balance, Balancing
from extproc.planning.simulation.cache import ResultCache
from extproc.planning.simulation.run_lengths import run_lengths
from extproc.planning.simulation.runner import FleetEstimate, search_all
from extproc.planning.simulation.task import Design, SearchTask, run_with_failure
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.lengths import Lengths

OBJECTIVE = Objective(0.4, 0.08, 0.999, (LengthClass(8_192, 30.0, 0.08),))


def task(every: int, requests: int = 2_000, longest: int = 0) -> SearchTask:
    """Return the search of one pool for requests of which one in `every` has a prompt of 12,000 tokens."""
    prompt = np.where(np.arange(4_000) % every == every - 1, 12_000, 500)
    lengths = Lengths(prompt, np.full(4_000, 50), "rare")
    catalogue = built_in()
    instance = Instance(catalogue.model("llama-3-8b"), catalogue.gpu("h100-80g"), 1)
    setup = Setup("8B", "H100", instance, 65_536, OBJECTIVE, spare=0, price_usd_h=2.0)
    design, balancing = Design("one", (65_536,)), Balancing(Balance.FULL_SCAN)
    return SearchTask(
        design, setup, lengths, DeclaredRule.TRUTH, 30, requests, 1, "oracle", balancing, longest=longest
    )


def searched(question: SearchTask) -> FleetEstimate:
    """Return the fleet that is found, without a cache."""
    (found,) = search_all([question], 1, ResultCache(None), lambda *_: None)
    return found


@pytest.mark.parametrize(
    ("every", "longest", "lengths"),
    [
        (2, 32_000, [2_000, 8_000, 32_000]),
        (10, 32_000, [4_000, 16_000, 32_000]),
        (100, 32_000, [16_000, 32_000]),
        (100, 0, [2_000]),
    ],
)
def test_runs_hold_enough_of_the_rarest_class_while_two_lengths_fit(
    every: int, longest: int, lengths: list[int]
) -> None:
    """Twice the 200 requests that are judged, since half of a run may be warm-up; a stated length stays."""
    assert lengths == list(run_lengths(task(every, longest=longest), 4))


def test_a_pool_that_serves_a_part_of_a_class_needs_no_more_of_it_than_the_fleet() -> None:
    """A pool with a tenth of a class may be late for ten times the share of it."""
    question = task(100, longest=320_000)
    part = replace(question, setup=replace(question.setup, objective=replace(OBJECTIVE, late=0.1)))
    assert [40_000, 4_000] == [next(run_lengths(each, 4)) for each in (question, part)]


def test_a_rare_class_sizes_the_fleet() -> None:
    """With runs that hold enough of them, long requests have the instances that they need to start in time."""
    short, enough = searched(task(10)), searched(task(10, longest=8_000))
    assert ("longer",) == short.not_judged
    assert () == enough.not_judged
    assert short.instances < enough.instances
    assert (
        enough.typical.summary.judged[1].latency.ttft_p99_s
        <= 0.4
        < short.typical.summary.judged[1].latency.ttft_p99_s
    )


def test_a_class_that_is_not_judged_is_named_with_the_recommendation() -> None:
    """The objective is not said to be met: the recommendation, a note, and the note on failures name the class."""
    question = task(50)
    found = searched(question)
    costs = costs_of(question.setup)
    assert recommend_simulated([found], costs).endswith("; not judged, too few requests: longer")
    assert "whether requests of the class 'longer' meet the objective is not known" in fleet_notes((found,))[0]
    (failed,) = failure_notes(run_with_failure(question, (4,)))
    assert failed.endswith("(not judged, too few requests: longer).")


def test_a_class_that_the_workload_does_not_have_is_no_gap() -> None:
    """No request of it can be late."""
    found = searched(task(5_000))
    assert 0 == found.typical.summary.judged[1].latency.requests
    assert () == found.not_judged == fleet_notes((found,))
