"""Many searches: from the cache, in this process, or over several."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from math import sqrt
from multiprocessing import get_context

import numpy as np

from extproc.planning.cache import ResultCache
from extproc.planning.search import Design, FoundFleet, SearchTask, smallest_fleets
from extproc.planning.shared import renamed, same_search

__all__ = ["FleetEstimate", "search_all"]

# 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom (any table of the distribution).
STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
NORMAL_975 = 1.96


@dataclass(frozen=True, slots=True)
class FleetEstimate:
    """The smallest fleet of one design over several seeds.

    `instances` is the mean of the totals, `half_width` that of its 95 % confidence interval (nan for one seed);
    `typical` is the seed whose total is the median.
    """

    design: Design
    found: tuple[FoundFleet, ...]
    instances: float
    half_width: float
    typical: FoundFleet


def search_all(
    tasks: Sequence[SearchTask], jobs: int, cache: ResultCache, progress: Callable[[int, str], None]
) -> tuple[FleetEstimate, ...]:
    """Search every task, and return an estimate for each; `progress` is told how many are done and what is
    going on.

    Raises ConfigurationError, of the first task that no fleet can meet.
    """
    results = {index: found for index, task in enumerate(tasks) if (found := cache.get(task)) is not None}
    missing = [index for index in range(len(tasks)) if index not in results]
    same = _same_as(tasks, missing)
    missing = [index for index in missing if index not in same]
    progress(len(results), "")
    for index, found in _searched(tasks, missing, jobs, lambda what: progress(len(results), what)):
        results[index] = found
        cache.put(tasks[index], found)
        progress(len(results), tasks[index].design.name)
    for index, first in same.items():
        results[index] = renamed(results[first], tasks[index].design)
        cache.put(tasks[index], results[index])
        progress(len(results), tasks[index].design.name)
    return tuple(_estimate(results[index]) for index in range(len(tasks)))


def _same_as(tasks: Sequence[SearchTask], missing: list[int]) -> dict[int, int]:
    """Return, for each missing task that is the same simulation as an earlier missing one, that one's index."""
    same: dict[int, int] = {}
    for place, index in enumerate(missing):
        twin = next((e for e in missing[:place] if e not in same and same_search(tasks[index], tasks[e])), None)
        if twin is not None:
            same[index] = twin
    return same


def _searched(
    tasks: Sequence[SearchTask], missing: list[int], jobs: int, doing: Callable[[str], None]
) -> Iterator[tuple[int, tuple[FoundFleet, ...]]]:
    """Yield each missing result as it is found."""
    if jobs == 1 or len(missing) <= 1:
        for index in missing:
            yield index, smallest_fleets(tasks[index], partial(_tell, doing, tasks[index]))
        return
    # Forking a process that has threads (the progress bar's) can deadlock the child.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(smallest_fleets, tasks[index]): index for index in missing}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _tell(doing: Callable[[str], None], task: SearchTask, seen: int) -> None:
    doing(f"{task.design.name}: {seen:,} of {task.requests:,} requests")


def _estimate(found: tuple[FoundFleet, ...]) -> FleetEstimate:
    totals = np.array([fleet.total for fleet in found], np.float64)
    freedom = len(totals) - 1
    half = float("nan")
    if freedom > 0:
        t = STUDENT_T[freedom - 1] if freedom <= len(STUDENT_T) else NORMAL_975
        half = t * float(totals.std(ddof=1)) / sqrt(len(totals))
    typical = sorted(found, key=lambda fleet: fleet.total)[len(found) // 2]
    return FleetEstimate(found[0].design, found, float(totals.mean()), half, typical)
