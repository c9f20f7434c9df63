"""What a simulated fleet did, in the figures that people compare: percentiles, shares, counts per thousand."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from extproc.planning.model.setup import Objective
from extproc.planning.simulation.fleet import FleetRun, PoolUse
from extproc.planning.workload.lengths import Floats

__all__ = ["Latency", "Miss", "Summary", "first_measured", "misses", "summarise"]

WARM_UP = 0.1  # of the requests: the fleet starts empty, which flatters it
CURVE_POINTS = 101


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of one group of requests, in seconds; nan for an empty group."""

    requests: int
    ttft_p50_s: float
    ttft_p99_s: float
    tpot_p50_s: float
    tpot_p99_s: float


@dataclass(frozen=True, slots=True)
class Summary:
    """One run after its warm-up. Shares are of all measured requests; `ttft_curve_s` holds 101 percentiles of
    TTFT.
    """

    all: Latency
    by_pool: tuple[Latency, ...]
    pools: tuple[PoolUse, ...]
    success: float
    rejected: float
    truncated: float
    misrouted: float
    under_counted: float
    preemptions_per_1000: float
    ttft_curve_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Miss:
    """A part of the objective that was not met: its name, the value and what was asked for, as text."""

    what: str
    value: str
    asked: str

    def __str__(self) -> str:
        return f"{self.what} {self.value} (asked: {self.asked})"


def summarise(run: FleetRun) -> Summary:
    """Reduce a run to its figures."""
    size = len(run.pool)
    measured = np.arange(size) >= first_measured(size)
    rejected = (run.pool < 0) & measured
    truncated = run.truncated & measured
    count = max(1, int(measured.sum()))
    answered = run.ttft_s[measured & (run.pool >= 0)]
    curve = np.percentile(answered, np.linspace(0, 100, CURVE_POINTS)).tolist() if len(answered) else []
    return Summary(
        all=_latency(run, measured),
        by_pool=tuple(_latency(run, measured & (run.pool == index)) for index in range(len(run.pools))),
        pools=run.pools,
        success=1 - float((rejected | truncated).sum()) / count,
        rejected=float(rejected.sum()) / count,
        truncated=float(truncated.sum()) / count,
        misrouted=float((run.misrouted & measured).sum()) / count,
        under_counted=run.under_counted / size,
        preemptions_per_1000=1000 * sum(use.preemptions for use in run.pools) / size,
        ttft_curve_s=tuple(curve),
    )


def first_measured(requests: int) -> int:
    """Return the index of the first request after the warm-up."""
    return int(requests * WARM_UP)


def misses(latency: Latency, objective: Objective) -> tuple[Miss, ...]:
    """Return what of the latency objective a group of requests missed; an empty group misses nothing."""
    found = []
    if latency.ttft_p99_s > objective.ttft_s:
        found.append(Miss("P99 TTFT", f"{latency.ttft_p99_s:.2f} s", f"{objective.ttft_s:g} s"))
    if latency.tpot_p99_s > objective.tpot_s:
        found.append(Miss("P99 TPOT", f"{latency.tpot_p99_s * 1e3:.0f} ms", f"{objective.tpot_s * 1e3:g} ms"))
    return tuple(found)


def _latency(run: FleetRun, chosen: npt.NDArray[np.bool_]) -> Latency:
    ttft, tpot = run.ttft_s[chosen], run.tpot_s[chosen]
    return Latency(int(chosen.sum()), *_percentiles(ttft), *_percentiles(tpot))


def _percentiles(values: Floats) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return float("nan"), float("nan")
    median, tail = np.percentile(known, [50, 99])
    return float(median), float(tail)
