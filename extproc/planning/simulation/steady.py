"""Whether a run shows the fleet's steady state, and from where on: a fleet starts empty, which flatters it.

The number of requests inside a pool is followed over the run, as means of batches of arrivals.

- Warm-up: MSER (White, 1997): the start that is left out is the one that makes the standard error of the rest
  smallest. Where that would be half of the run or more, the run is too short to tell.
- Length: a run is too short, too, when requests come for less than three times as long as one stays on average:
  the fleet has hardly filled, and MSER finds nothing to leave out of a rise without end.
- Growth: a pool that gets more than it can serve fills without end. A line is laid through the batches after the
  warm-up; the run is not steady when it rises beyond chance and by more than a fifth of the mean.

Welch's method was rejected because somebody has to look; a fixed share (10 % before) because responses of some
minutes take longer than that of a run of one minute to fill the fleet.
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
STAYS = 3  # times the mean stay of a request: the least that requests must come for


@dataclass(frozen=True, slots=True)
class Steadiness:
    """The share of the run that is warm-up; whether that is too much to tell more; whether the rest grows."""

    warm_up: float
    too_short: bool = False
    grows: bool = False


def steadiness(arrival_s: Floats, finish_s: Floats) -> Steadiness:
    """Judge one pool by its requests, in order of arrival."""
    if len(arrival_s) < FEWEST:
        return Steadiness(0.0)
    inside = np.arange(len(arrival_s)) - np.searchsorted(np.sort(finish_s), arrival_s)
    batches = np.array([part.mean() for part in np.array_split(inside, BATCHES)])
    start = _mser(batches)
    hardly_filled = float(arrival_s[-1] - arrival_s[0]) < STAYS * float((finish_s - arrival_s).mean())
    too_short = hardly_filled or start >= BATCHES // 2
    return Steadiness(start / BATCHES, too_short=too_short, grows=_grows(batches[start:]))


def _mser(batches: Floats) -> int:
    """Return how many batches to leave out."""
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
