"""Runs many searches; each is answered from the cache or simulated, in this process or in several."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import partial
from math import isnan, sqrt

import numpy as np

from extproc.planning.simulation.cache import ResultCache
from extproc.planning.simulation.processes import processes
from extproc.planning.simulation.search import FoundFleet, ObjectiveNotMet, smallest_fleets
from extproc.planning.simulation.shared import renamed, same_search
from extproc.planning.simulation.task import Design, SearchTask
from extproc.planning.simulation.verdict import not_judged

__all__ = ["FleetEstimate", "NotMet", "search_all", "search_each"]

# 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom (any table of the distribution). With more, the
# last one is used, which makes the interval slightly too wide.
STUDENT_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)


@dataclass(frozen=True, slots=True)
class FleetEstimate:
    """The smallest fleet of one design over several seeds.

    `instances` is the mean of the totals. `half_width` is half of its 95 % confidence interval (which does not
    exist for one seed, or if all seeds replay the same trace), or the difference between runs of two lengths if
    that is larger; nan if there is neither. `typical` is the seed with the median total. `not_steady` says why the
    size is not known to be that of a steady state, "" if it is. `not_judged` names the classes of the objective
    that were too rare in a run to be judged: whether they meet it is not known.
    """

    design: Design
    found: tuple[FoundFleet, ...]
    instances: float
    half_width: float
    typical: FoundFleet
    not_steady: str = ""
    not_judged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NotMet:
    """A design with no fleet that meets the objective, and a sentence that says why."""

    design: Design
    why: str


Found = tuple[FoundFleet, ...]
Outcome = tuple[FoundFleet, ...] | NotMet


def search_all(
    tasks: Sequence[SearchTask], jobs: int, cache: ResultCache, progress: Callable[[int, str], None]
) -> tuple[FleetEstimate, ...]:
    """Search every task, and return an estimate for each; see `search_each`.

    Raises ObjectiveNotMet for the first task that no fleet can meet.
    """
    outcomes = search_each(tasks, jobs, cache, progress)
    for outcome in outcomes:
        if isinstance(outcome, NotMet):
            raise ObjectiveNotMet(outcome.why)
    return tuple(outcome for outcome in outcomes if isinstance(outcome, FleetEstimate))


def search_each(
    tasks: Sequence[SearchTask], jobs: int, cache: ResultCache, progress: Callable[[int, str], None]
) -> tuple[FleetEstimate | NotMet, ...]:
    """Search every task, and return an estimate for each, or why there is none; `progress` is called with the
    number of finished tasks and what is running.
    """
    results: dict[int, Outcome] = {
        index: found for index, task in enumerate(tasks) if (found := cache.get(task, Found)) is not None
    }
    missing = [index for index in range(len(tasks)) if index not in results]
    same = _same_as(tasks, missing)
    missing = [index for index in missing if index not in same]
    progress(len(results), "")
    for index, outcome in _searched(tasks, missing, jobs, lambda what: progress(len(results), what)):
        results[index] = _stored(cache, tasks[index], outcome)
        progress(len(results), tasks[index].design.name)
    for index, first in same.items():
        results[index] = _stored(cache, tasks[index], _renamed(results[first], tasks[index].design))
        progress(len(results), tasks[index].design.name)
    return tuple(_estimate(results[index], tasks[index]) for index in range(len(tasks)))


def _stored(cache: ResultCache, task: SearchTask, outcome: Outcome) -> Outcome:
    if not isinstance(outcome, NotMet):
        cache.put(task, outcome)
    return outcome


def _renamed(outcome: Outcome, design: Design) -> Outcome:
    return NotMet(design, outcome.why) if isinstance(outcome, NotMet) else renamed(outcome, design)


def _outcome(task: SearchTask, progress: Callable[[int], None] | None = None) -> Outcome:
    try:
        return smallest_fleets(task, progress)
    except ObjectiveNotMet as error:
        return NotMet(task.design, str(error))


def _same_as(tasks: Sequence[SearchTask], missing: list[int]) -> dict[int, int]:
    """Map the index of each missing task that repeats an earlier missing one's simulation to the earlier index."""
    same: dict[int, int] = {}
    for place, index in enumerate(missing):
        twin = next((e for e in missing[:place] if e not in same and same_search(tasks[index], tasks[e])), None)
        if twin is not None:
            same[index] = twin
    return same


def _searched(
    tasks: Sequence[SearchTask], missing: list[int], jobs: int, doing: Callable[[str], None]
) -> Iterator[tuple[int, Outcome]]:
    """Yield the index and outcome of each missing task when it is done."""
    if jobs == 1 or len(missing) <= 1:
        for index in missing:
            yield index, _outcome(tasks[index], partial(_report, doing, tasks[index]))
        return
    with processes(jobs) as pool:
        futures = {pool.submit(_outcome, tasks[index]): index for index in missing}
        for future in as_completed(futures):
            yield futures[future], future.result()


def _report(doing: Callable[[str], None], task: SearchTask, seen: int) -> None:
    doing(f"{task.design.name}: {seen:,} of {task.requests:,} requests")


def _estimate(found: Outcome, task: SearchTask) -> FleetEstimate | NotMet:
    if isinstance(found, NotMet):
        return found
    totals = np.array([fleet.total for fleet in found], np.float64)
    freedom = len(totals) - 1
    half = float("nan")
    if freedom > 0 and task.stationary:
        half = STUDENT_T[min(freedom, len(STUDENT_T)) - 1] * float(totals.std(ddof=1)) / sqrt(len(totals))
    typical = sorted(found, key=lambda fleet: fleet.total)[len(found) // 2]
    apart = float(max(abs(fleet.total - fleet.shorter) for fleet in found))
    if apart:
        half = apart if isnan(half) else max(half, apart)
    why_not = next((fleet.not_steady for fleet in found if fleet.not_steady), "")
    gaps = (not_judged(fleet.summary, task.setup.objective, task.lengths.total) for fleet in found)
    rare = tuple(dict.fromkeys(name for each in gaps for name in each))
    return FleetEstimate(found[0].design, found, float(totals.mean()), half, typical, why_not, rare)
