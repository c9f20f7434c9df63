"""The results of a simulated fleet as figures to compare: percentiles, shares, counts per thousand."""

from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
import numpy.typing as npt

from extproc.planning.model.objective import LengthClass, Objective
from extproc.planning.simulation.fleet import FleetRun, PoolUse
from extproc.planning.simulation.steady import Steadiness, steadiness
from extproc.planning.workload.lengths import Floats

__all__ = ["ClassFigures", "Latency", "PoolFigures", "Summary", "first_measured", "summarise"]

WARM_UP = 0.1  # of the requests at least; more if `steady.py` finds a longer one
CURVE_POINTS = 101
BATCHES = 10
BATCH_T = 2.262  # 97.5 % of Student's t with 9 degrees of freedom
FEWEST_IN_BATCH = 100


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of one group of requests, in seconds; nan for an empty group."""

    requests: int
    ttft_p50_s: float
    ttft_p99_s: float
    tpot_p50_s: float
    tpot_p99_s: float


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """One class of lengths over all pools. `late` holds the shares that miss the class's objective (TTFT, TPOT);
    `ttft_p99_half_s` is the half width of the 95 % interval of its P99 TTFT by batch means (nan: too few
    requests).
    """

    name: str
    limit: float | None
    latency: Latency
    late: tuple[float, float]
    ttft_p99_half_s: float


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """The requests of one pool: `late` counts those beyond the loosest times of the objective (TTFT, TPOT),
    `late_by_class` those beyond the times of their class. `grows` marks a pool that kept filling until the end of
    the run, `doubtful` one whose run was too short to tell that from a pool that is not yet full.
    """

    latency: Latency
    late: tuple[int, int]
    late_by_class: tuple[tuple[int, int], ...]
    grows: bool = False
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """One run after its warm-up, if it has one. Shares are of the measured requests, except that `under_counted`
    and `preemptions_per_1000` cover all requests; `ttft_curve_s` holds 101 percentiles of TTFT. `judged` are the
    classes of the objective, `by_length` those of the latency tables.
    """

    all: Latency
    judged: tuple[ClassFigures, ...]
    by_length: tuple[ClassFigures, ...]
    by_pool: tuple[PoolFigures, ...]
    pools: tuple[PoolUse, ...]
    success: float
    rejected: float
    truncated: float
    misrouted: float
    under_counted: float
    preemptions_per_1000: float
    ttft_curve_s: tuple[float, ...]
    warm_up: float
    too_short: bool

    @property
    def shortest(self) -> ClassFigures:
        """The shortest class with requests: the one that most users notice."""
        return next((c for c in self.by_length if c.latency.requests), self.by_length[0])


def summarise(run: FleetRun, objective: Objective, *, stationary: bool = True) -> Summary:
    """Reduce a run to its figures; a run that is not `stationary` has no warm-up, and may grow to its end."""
    size = len(run.pool)
    states = _steadiness(run, stationary=stationary)
    least = WARM_UP if stationary else 0.0
    warm_up = max((least, *(state.warm_up for state in states)))
    measured = np.arange(size) >= int(size * warm_up)
    rejected, truncated = (run.pool < 0) & measured, run.truncated & measured
    answered = measured & (run.pool >= 0)
    count = max(1, int(measured.sum()))
    curve = np.percentile(run.ttft_s[answered], np.linspace(0, 100, CURVE_POINTS)) if answered.any() else None
    return Summary(
        all=_latency(run, measured),
        judged=_classes(run, measured, objective.classes),
        by_length=_classes(run, measured, objective.shown),
        by_pool=tuple(
            _pool(run, measured & (run.pool == index), objective, state) for index, state in enumerate(states)
        ),
        pools=run.pools,
        success=1 - float((rejected | truncated).sum()) / count,
        rejected=float(rejected.sum()) / count,
        truncated=float(truncated.sum()) / count,
        misrouted=float((run.misrouted & measured).sum()) / count,
        under_counted=run.under_counted / size,
        preemptions_per_1000=1000 * sum(use.preemptions for use in run.pools) / size,
        ttft_curve_s=() if curve is None else tuple(curve.tolist()),
        warm_up=warm_up,
        too_short=any(state.too_short for state in states),
    )


def first_measured(requests: int, *, stationary: bool) -> int:
    """Return the index of the first request after the shortest warm-up."""
    return int(requests * WARM_UP) if stationary else 0


def _steadiness(run: FleetRun, *, stationary: bool) -> list[Steadiness]:
    members = (run.pool == index for index in range(len(run.pools)))
    return [steadiness(run.arrival_s[each], run.finish_s[each], stationary=stationary) for each in members]


def _classes(
    run: FleetRun, measured: npt.NDArray[np.bool_], classes: tuple[LengthClass, ...]
) -> tuple[ClassFigures, ...]:
    figures, above = [], -1.0
    for each in classes:
        selected = measured & (run.total > above) & (run.total <= each.limit)
        answered = max(1, int((selected & (run.pool >= 0)).sum()))
        late = _late(run, selected, each.ttft_s, each.tpot_s)
        limit = None if each.limit == float("inf") else each.limit
        latency, half = _latency(run, selected), _half_width(run.ttft_s[selected])
        figures.append(ClassFigures(each.name, limit, latency, (late[0] / answered, late[1] / answered), half))
        above = each.limit
    return tuple(figures)


def _pool(run: FleetRun, selected: npt.NDArray[np.bool_], objective: Objective, state: Steadiness) -> PoolFigures:
    index = objective.of(run.total)
    loosest = (max(c.ttft_s for c in objective.classes), max(c.tpot_s for c in objective.classes))
    by_class = tuple(
        _late(run, selected & (index == place), each.ttft_s, each.tpot_s)
        for place, each in enumerate(objective.classes)
    )
    return PoolFigures(
        _latency(run, selected), _late(run, selected, *loosest), by_class, state.grows, state.doubtful
    )


def _late(run: FleetRun, selected: npt.NDArray[np.bool_], ttft_s: float, tpot_s: float) -> tuple[int, int]:
    return int((run.ttft_s[selected] > ttft_s).sum()), int((run.tpot_s[selected] > tpot_s).sum())


def _latency(run: FleetRun, selected: npt.NDArray[np.bool_]) -> Latency:
    ttft, tpot = run.ttft_s[selected], run.tpot_s[selected]
    return Latency(int(selected.sum()), *_percentiles(ttft), *_percentiles(tpot))


def _percentiles(values: Floats) -> tuple[float, float]:
    """Return the median and the 99th percentile: the smallest value that at least that share does not exceed."""
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return nan, nan
    median, tail = np.percentile(known, [50, 99], method="inverted_cdf")
    return float(median), float(tail)


def _half_width(ttft_s: Floats) -> float:
    """Return the half width of the 95 % interval of the P99, by means of batches in order of arrival."""
    known = ttft_s[~np.isnan(ttft_s)]
    if len(known) < BATCHES * FEWEST_IN_BATCH:
        return nan
    tails = np.array([_percentiles(part)[1] for part in np.array_split(known, BATCHES)])
    return BATCH_T * float(tails.std(ddof=1)) / sqrt(BATCHES)
