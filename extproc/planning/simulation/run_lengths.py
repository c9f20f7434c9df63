"""The lengths of the runs of a search: what was asked for, or enough to judge the rarest class, then longer ones.

A class of the objective with fewer requests in a run than a 99th percentile needs cannot be judged
(`verdict.py`). A fleet that ignores it may be far too small: where .4 % of 150 req/s were long and had .4 s, two
pools took 12 GPUs by runs that held 130 long requests, and 16 by runs that held enough. So the first length
holds enough of each class, as long as that leaves room for a second one, twice as long, to agree with it.
"""

from collections.abc import Iterator
from math import ceil

from extproc.planning.model.objective import FEWEST_JUDGED, LATE
from extproc.planning.simulation.task import SearchTask

__all__ = ["run_lengths"]


def run_lengths(task: SearchTask, times: int) -> Iterator[int]:
    """Yield the lengths of runs in requests: the one that was asked for, or one long enough for the rarest class,
    then longer ones up to the longest.
    """
    if not task.stationary:
        yield task.requests
        return
    requests = max(task.requests, min(_for_all_classes(task), task.longest // 2))
    yield requests
    while (longer := min(times * requests, task.longest)) > requests:
        requests = longer
        yield requests


def _for_all_classes(task: SearchTask) -> int:
    """Return how many requests hold enough of each class to judge it, even if half of the run is warm-up. A class
    that may be late more often needs fewer.
    """
    objective = task.setup.objective
    present = zip(objective.classes, objective.count(task.lengths.total), strict=True)
    needed = (
        2 * FEWEST_JUDGED * (LATE / each.late) * len(task.lengths) / count for each, count in present if count
    )
    return ceil(max(needed))
