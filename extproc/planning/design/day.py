"""GPU-hours per day of fleets that follow the load.

The sizes come from simulation: each design's smallest fleet is also searched at a quarter, a half and three
quarters of the peak, and interpolated linearly in between, and below a quarter down to the one instance that the
least load needs. Small fleets need more capacity per request, which a fixed rate per instance would not show.
Three ways to run a day are compared:

- *fixed*: the fleet of the peak, all day.
- *following*: an autoscaler that sees the current load. An instance that it requests serves after `start_minutes`
  (image, weights, graphs) and costs money from the request on; an instance that is not needed stops immediately.
  It aims at the load times a head-room, the smallest with which the fleet is never too small during the day.
- *foreseen*: an autoscaler that knows the next `start_minutes` in advance. No autoscaler does better.

Not modelled: requests that a stopping instance still has to finish, and load jumps within a step of five minutes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from extproc.planning.model.costs import Costs
from extproc.planning.simulation.cache import ResultCache
from extproc.planning.simulation.runner import FleetEstimate, NotMet, search_each
from extproc.planning.simulation.task import SearchTask
from extproc.planning.workload.day import STEP_MINUTES, Day
from extproc.planning.workload.lengths import Floats

__all__ = ["DayOfFleet", "DayQuestion", "day_of", "days_of"]

PARTS = (0.25, 0.5, 0.75)  # shares of the peak at which fleets are searched in addition
MOST_HEAD_ROOM = 4.0
HALVINGS = 20


@dataclass(frozen=True, slots=True)
class DayOfFleet:
    """GPU-hours of one design over a day, spares included; `head_room` is what *following* needs above the load.

    `following` and `head_room` are None if no head-room up to 4 (five times the load) is enough.
    """

    name: str
    fixed: float
    following: float | None
    foreseen: float
    head_room: float | None


@dataclass(frozen=True, slots=True)
class DayQuestion:
    """The load over the day, the time an instance takes to start, and the cost of instances."""

    day: Day
    start_minutes: float
    costs: Costs


def days_of(
    fleets: Sequence[tuple[FleetEstimate, SearchTask]],
    asked: DayQuestion,
    jobs: int,
    cache: ResultCache,
    progress: Callable[[int, int, str], None],
) -> tuple[tuple[DayOfFleet, ...], tuple[str, ...]]:
    """Search each fleet's design at shares of the peak and compute its day.

    Also return a sentence on each design that has no day, because at the peak or at a share of it no fleet is
    known that keeps the objective.
    """
    tasks = [replace(task, rate=task.rate * part) for _, task in fleets for part in PARTS]
    found = search_each(tasks, jobs, cache, lambda done, what: progress(done, len(tasks), what))
    parts = [found[at : at + len(PARTS)] for at in range(0, len(found), len(PARTS))]
    days, unknown = [], []
    for (fleet, _), mine in zip(fleets, parts, strict=True):
        day = day_of(fleet, mine, asked)
        if day is not None:
            days.append(day)
        else:
            unknown.append(f"{fleet.design.name}: what a day of it takes is not known: {_unknown(fleet, mine)}.")
    return tuple(days), tuple(unknown)


def _unknown(fleet: FleetEstimate, parts: Sequence[FleetEstimate | NotMet]) -> str:
    """Return the largest share of the peak at which no fleet is known, and why; "" if there is none."""
    for share, found in zip((1.0, *reversed(PARTS)), (fleet, *reversed(parts)), strict=True):
        at = f"at {share:.0%} of the peak" if share < 1 else "at the peak"
        if isinstance(found, NotMet):
            return f"{at}, {found.why.removeprefix(f'{found.design.name}: ')}"
        if found.not_steady:
            return f"{at} no fleet is known to be steady ({found.not_steady})"
    return ""


def day_of(fleet: FleetEstimate, parts: Sequence[FleetEstimate | NotMet], asked: DayQuestion) -> DayOfFleet | None:
    """Return the day of one design, or None if at the peak or a share of it no fleet is known to be steady and in
    time.
    """
    found = [each for each in parts if isinstance(each, FleetEstimate)]
    if _unknown(fleet, parts):
        return None
    cost = asked.costs.of(fleet)
    sizes = np.array([each.typical.instances for each in (*found, fleet)])
    gpus = np.array(cost.gpus_per_instance)
    load = np.array(asked.day.shares)
    steps = ceil(asked.start_minutes / STEP_MINUTES)
    need = _need(sizes, load)

    def gpu_hours(instances: Floats) -> float:
        return float(((instances + asked.costs.spare) @ gpus).sum()) * STEP_MINUTES / 60

    head_room = _least_head_room(sizes, load, need, steps)
    following = None if head_room is None else gpu_hours(_need(sizes, load * (1 + head_room)))
    foreseen = gpu_hours(_over_next(need, steps, np.maximum))
    fixed = gpu_hours(np.broadcast_to(sizes[-1], need.shape).astype(np.float64))
    return DayOfFleet(fleet.design.name, fixed, following, foreseen, head_room)


def _need(sizes: "np.ndarray[tuple[int, int], np.dtype[np.int64]]", load: Floats) -> Floats:
    """Return the instances that each pool needs at each load, shape (loads, pools).

    Without load that is still one: from none on the line would promise the night's small fleets the economy of the
    day's large ones. Above the peak it grows in proportion to the load.
    """
    shares = (0.0, *PARTS, 1.0)
    most = max(1.0, float(load.max()))
    columns = []
    for pool in sizes.T.tolist():
        points = np.interp(load, (*shares, most + 1e-9), (1.0, *pool, pool[-1] * most))
        columns.append(np.ceil(points - 1e-9))
    return np.stack(columns, axis=1)


def _least_head_room(
    sizes: "np.ndarray[tuple[int, int], np.dtype[np.int64]]", load: Floats, need: Floats, steps: int
) -> float | None:
    def enough(head_room: float) -> bool:
        asked = _need(sizes, load * (1 + head_room))
        return bool((_over_last(asked, steps) >= need).all())

    if enough(0.0):
        return 0.0
    if not enough(MOST_HEAD_ROOM):
        return None
    low, high = 0.0, MOST_HEAD_ROOM
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _over_last(values: Floats, steps: int) -> Floats:
    """Return the minimum of each value and the `steps` before it; the day before is taken to be the same."""
    return _over_next(values[::-1], steps, np.minimum)[::-1]


def _over_next(values: Floats, steps: int, of: np.ufunc) -> Floats:
    found = values
    for step in range(1, steps + 1):
        found = of(found, np.roll(values, -step, axis=0))
    return found
