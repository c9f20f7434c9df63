"""Detection of steady state: whether a run shows it, and from when on. A fleet starts empty, which flatters it.

The number of requests in a pool is tracked over the run, as means over batches of arrivals.

- Warm-up: MSER (White, 1997) leaves out the start that minimises the standard error of the rest. If that would be
  half of the run or more, the run is too short.
- Length: a run is also too short if requests arrive for less than three times their mean stay: the fleet has
  hardly filled, and MSER finds nothing to leave out of a rise that never ends.
- Growth: a pool that receives more than it can serve never stops filling. A line is fitted to the batches after
  the warm-up; the run is not steady if the line rises significantly and by more than a fifth of the mean.
- Doubt: a pool that can serve everything rises, too, until it has filled, and a short run shows nothing else. How
  long it takes depends on the stays weighted by themselves: the few that are long fill it last. In 718 runs of
  pools at 60 to 90 % load (conversations, equal and heavy-tailed outputs; 3, 12 and 40 instances) the line rose in
  229 of 441 runs shorter than six such stays, and in 2 of 277 longer ones. So growth in a shorter run is doubtful:
  the pool may be too small, or still filling.

A run that follows a trace's own arrivals, or in which instances die, has no steady state to find. A busy start is
load, not warm-up (with 15 % of the requests at four times the rate MSER left out the burst and the queue behind
it: a third of all requests, which waited for more than 2 s), and a pool that fills towards the end may only follow
the load. There every request counts, from the first one on. That the fleet starts empty flatters the requests of
the first few seconds; the run is too short if it lasts for less than three mean stays, as above.

Rejected: Welch's method, because a person has to look at the plot; and a fixed share (10 % before), because with
responses that take minutes, a fleet needs longer than a tenth of a one-minute run to fill.
"""

from dataclasses import dataclass
from math import inf, sqrt

import numpy as np

from extproc.planning.workload.lengths import Floats

__all__ = ["Steadiness", "steadiness"]

BATCHES = 60
TREND_BATCHES = 10
TREND_T = 3.355  # two-sided 1 % of Student's t with 8 degrees of freedom
GROWTH = 0.2
FEWEST = 4 * BATCHES
STAYS = 3  # mean stays of a request: the shortest time for which requests must arrive
STAYS_TO_TELL = 6  # stays, weighted by themselves: the shortest time after which growth is not just filling


@dataclass(frozen=True, slots=True)
class Steadiness:
    """The share of the run that is warm-up, whether the run is too short to judge, whether the rest grows, and
    whether that is doubtful because the pool may only have been filling.
    """

    warm_up: float
    too_short: bool = False
    grows: bool = False
    doubtful: bool = False


def steadiness(arrival_s: Floats, finish_s: Floats, *, stationary: bool = True) -> Steadiness:
    """Judge one pool by its requests, in order of arrival; `stationary` says that a steady state is expected."""
    if len(arrival_s) < FEWEST:
        return Steadiness(0.0)
    stay_s, arriving_s = finish_s - arrival_s, float(arrival_s[-1] - arrival_s[0])
    hardly_filled = arriving_s < STAYS * float(stay_s.mean())
    if not stationary:
        return Steadiness(0.0, too_short=hardly_filled)
    inside = np.arange(len(arrival_s)) - np.searchsorted(np.sort(finish_s), arrival_s)
    batches = np.array([part.mean() for part in np.array_split(inside, BATCHES)])
    start = _mser(batches)
    grows = _grows(batches[start:])
    return Steadiness(
        start / BATCHES,
        too_short=hardly_filled or start >= BATCHES // 2,
        grows=grows,
        doubtful=grows and arriving_s * float(stay_s.sum()) < STAYS_TO_TELL * float((stay_s**2).sum()),
    )


def _mser(batches: Floats) -> int:
    """Return the number of batches to leave out."""
    best, least = 0, inf
    for start in range(len(batches) // 2 + 1):
        rest = batches[start:]
        error = float(rest.var()) / len(rest)
        if error < least * (1 - 1e-9):
            best, least = start, error
    return best


def _grows(batches: Floats) -> bool:
    means = np.array([part.mean() for part in np.array_split(batches, TREND_BATCHES)])
    at = np.arange(TREND_BATCHES) - (TREND_BATCHES - 1) / 2
    slope = float((at * means).sum() / (at**2).sum())
    rest = means - means.mean() - slope * at
    error = sqrt(float((rest**2).sum()) / (TREND_BATCHES - 2) / float((at**2).sum()))
    rise = slope * TREND_BATCHES
    return slope > TREND_T * error and rise > GROWTH * max(float(means.mean()), 1.0)
