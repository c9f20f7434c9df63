"""The sizes up to which a search goes: a fleet that has to be larger is hardly worth building.

At one rate that is a multiple of the first guess, with which there is no queue. Two random choices may still
meet a long prefill too often: chat among documents in one pool (bench/planner.md) misses its objective with
twelve times the guess, and meets it with fifteen. So a search that ends here says what was tried, not that
there is no fleet.

A trace's own arrivals may for a moment come at hundreds of times their mean rate, from which the guess is made:
where 800 of 3,800 requests arrive within half a second of 1,000, 24 instances start them within 1 s; one serves
the others. So the guess is scaled to the busiest time of each pool; but never to more instances than it has
requests then.
"""

from collections.abc import Sequence
from math import ceil

import numpy as np

from extproc.planning.simulation.task import SearchTask
from extproc.planning.workload.arrivals import Workload

__all__ = ["largest_sizes"]

TIMES_THE_GUESS = 8
SHORTEST_S = 1.0  # a burst is counted over the tightest TTFT, in which it has to be served, but at least this long


def largest_sizes(task: SearchTask, workload: Workload, guess: Sequence[int]) -> tuple[int, ...]:
    """Return the largest size worth trying of each pool; `guess` is what it needs at its mean rate."""
    if task.stationary:
        return tuple(TIMES_THE_GUESS * size for size in guess)
    window_s = max(SHORTEST_S, min(each.ttft_s for each in task.setup.objective.classes))
    pool = np.searchsorted(task.design.contexts[:-1], workload.prompt + workload.output)
    sizes = []
    for index, size in enumerate(guess):
        arrival_s = workload.arrival_s[pool == index]
        most = 0
        if len(arrival_s):
            ends = np.searchsorted(arrival_s, arrival_s + window_s, side="right")
            busiest = int((ends - np.arange(len(arrival_s))).max())
            usual = len(arrival_s) * window_s / float(workload.arrival_s[-1])
            most = min(busiest, ceil(size * busiest / usual))
        sizes.append(TIMES_THE_GUESS * max(size, most))
    return tuple(sizes)
