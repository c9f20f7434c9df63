"""The load over a day, as shares of its peak: from a file of hourly loads, or from a trace that covers a day.

The curve is of hours, the arrivals simulated beside it are of seconds: a trace whose hours differ has both.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.planning.workload.arrivals import check_gaps
from extproc.planning.workload.formats import separator_of
from extproc.planning.workload.lengths import Floats, Lengths

__all__ = ["STEPS", "STEP_MINUTES", "Day", "check_even_hours", "day_of_trace", "parse_day"]

STEP_MINUTES = 5
HOURS = 24
STEP_S = STEP_MINUTES * 60
STEPS = HOURS * 60 // STEP_MINUTES
SHORTEST_TRACE_H = 20.0  # a shorter trace says nothing about the missing hours
FEWEST_REQUESTS = 10 * STEPS
MOST_UNEVEN = 1.25  # times the mean load, in the busiest hour: more is a part of a day, not bursts
LEAST_COVERED = 0.5  # of a step: the load of a shorter part of it is mostly chance


@dataclass(frozen=True, slots=True)
class Day:
    """Shares of the peak rate in steps of five minutes; the largest is 1."""

    shares: tuple[float, ...]
    source: str

    @property
    def mean(self) -> float:
        """The mean share."""
        return sum(self.shares) / len(self.shares)


def parse_day(lines: Iterable[str], name: str) -> Day:
    """Parse rows of `hour,load`, with ascending hours from 0 to 24 and the load in any unit.

    Instead of the comma there may be a semicolon or a tab.
    The load is interpolated linearly between the rows and across midnight. Raises ConfigurationError that names
    the row.
    """
    hours: list[float] = []
    loads: list[float] = []
    separator = ""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        separator = separator or separator_of(line)
        try:
            hour, load = (float(part) for part in line.split(separator))
        except ValueError as error:
            if number == 1 and not any(map(str.isdigit, line)):
                continue  # a header
            raise ConfigurationError(
                f"{name}: line {number}: {line.strip()[:40]!r}: hour,load is needed, as in 13.5,0.8"
            ) from error
        if not (0 <= hour <= HOURS and 0 <= load < float("inf") and (not hours or hour > hours[-1])):
            raise ConfigurationError(
                f"{name}: line {number}: {line.strip()[:40]!r}: hours must ascend from 0 to {HOURS}, "
                "loads must not be negative"
            )
        hours.append(hour)
        loads.append(load)
    if len(hours) < 2 or max(loads) <= 0:  # noqa: PLR2004  (one point is no curve)
        raise ConfigurationError(f"{name}: at least two rows of hour,load are needed, not all of them 0")
    at = np.arange(STEPS) * STEP_MINUTES / 60
    at_steps = np.interp(at, hours, loads, period=HOURS)
    if at_steps.max() <= 0:
        raise ConfigurationError(f"{name}: all load is between two steps of {STEP_MINUTES} minutes")
    return _day(at_steps, name)


def day_of_trace(lengths: Lengths) -> Day:
    """Count a trace's arrivals by the time since its first request.

    A silence of a day or longer, as between two traces, is no part of the trace. The load of hours that are then
    on no day is interpolated between the others'. Raises ConfigurationError if the trace has no times, does not
    cover a day, has too few requests, or has none for most of its time: what comes then is not known.
    """
    times = np.zeros(1) if lengths.arrival_s is None else lengths.arrival_s
    gaps_s = np.diff(times)
    silent = gaps_s >= HOURS * 3600
    begins_s, ends_s = times[np.append(True, silent)], times[np.append(silent, True)]
    passes = np.zeros(STEPS)
    for begin_s, end_s in zip(begins_s.tolist(), ends_s.tolist(), strict=True):
        passes += _passes(end_s) - _passes(begin_s)
    covered = np.flatnonzero(passes >= LEAST_COVERED)
    hours = len(covered) * STEP_MINUTES / 60
    if hours < SHORTEST_TRACE_H or len(lengths) < FEWEST_REQUESTS:
        raise ConfigurationError(
            f"--day-curve trace: {lengths.source} covers {hours:.1f} hours of the day with {len(lengths):,} "
            f"requests; at least {SHORTEST_TRACE_H:g} hours and {FEWEST_REQUESTS:,} requests are needed"
        )
    seen_s = np.append(0.0, np.cumsum(np.where(silent, 0, gaps_s)))
    check_gaps(seen_s, f"--day-curve trace: {lengths.source}", "for the load of a day")
    counts = np.bincount((times // STEP_S).astype(np.int64) % STEPS, minlength=STEPS)
    loads = counts[covered] / passes[covered]
    return _day(np.interp(np.arange(STEPS), covered, loads, period=STEPS), lengths.source)


def _passes(until_s: float) -> Floats:
    """Return how often each step of the day is seen from 0 to a time: each day, and the last one in part."""
    whole, in_last_s = divmod(until_s, STEP_S)
    days, at = divmod(int(whole), STEPS)
    passes = days + (np.arange(STEPS) < at).astype(np.float64)
    passes[at] += in_last_s / STEP_S
    return passes


def check_even_hours(lengths: Lengths, asked: str) -> None:
    """Raise ConfigurationError if the hours of a trace differ too much for its arrivals to be those of a peak.

    With a day curve the rate is that of the peak, and a trace's arrivals have it on average: the ups and downs of
    its hours would come on top of the curve's. A trace of less than two whole hours has only bursts.
    """
    times = lengths.arrival_s
    hours = 0 if times is None else int(times[-1] // 3600)
    if times is None or hours < 2:  # noqa: PLR2004  (one hour is not busier than another)
        return
    counts = np.bincount((times // 3600).astype(np.int64))[:hours]
    busiest = float(counts.max() / counts.mean())
    if busiest > MOST_UNEVEN:
        raise ConfigurationError(
            f"--arrivals trace: --day-curve {asked} takes --rate as the peak, and the busiest of the {hours} "
            f"hours of {lengths.source} has {busiest:.2f} times their mean load: its ups and downs would "
            "count twice; give a part of it that is busy throughout, or poisson"
        )


def _day(loads: Floats, source: str) -> Day:
    return Day(tuple((loads / loads.max()).tolist()), source)
