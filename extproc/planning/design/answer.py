"""The plan as data: everything that is printed, exported and plotted."""

from dataclasses import dataclass

import numpy as np

from extproc.planning.design.choose import Sized
from extproc.planning.design.day import DayOfFleet
from extproc.planning.model.splits import Analysis
from extproc.planning.simulation.as_arrived import ArrivedRun
from extproc.planning.simulation.balancing import Balancing
from extproc.planning.simulation.runner import FleetEstimate
from extproc.planning.simulation.task import FailureRun
from extproc.planning.workload.lengths import LeftOut, Lengths

__all__ = ["Plan", "PoolPlan", "SearchedDesign", "WorkloadFigures", "searched_design"]


@dataclass(frozen=True, slots=True)
class WorkloadFigures:
    """Summary figures of a workload (in tokens); `left_out` are requests that it lacks."""

    source: str
    requests: int
    mean_prompt: float
    mean_output: float
    p50_total: int
    p99_total: int
    max_total: int
    left_out: LeftOut

    @classmethod
    def of(cls, lengths: Lengths) -> "WorkloadFigures":
        """Return the figures of a workload."""
        median, tail = np.percentile(lengths.total, [50, 99])
        return cls(
            source=lengths.source,
            requests=len(lengths),
            mean_prompt=float(lengths.prompt.mean()),
            mean_output=float(lengths.output.mean()),
            p50_total=round(median),
            p99_total=round(tail),
            max_total=int(lengths.total.max()),
            left_out=lengths.left_out,
        )


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """One pool of a searched design: it takes budgets up to `limit` tokens; `flags` are for `vllm serve`."""

    limit: int
    model_len: int
    gpu: str
    gpus_per_instance: int
    instances: int
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SearchedDesign:
    """The result of searching a design pool by pool: without spares, and less exact than the simulated fleets.

    `balancing` is None if only one rule was requested.
    """

    limits: tuple[int, ...]
    gpus: int
    pools: tuple[PoolPlan, ...]
    balancing: Balancing | None = None


def searched_design(sized: Sized) -> SearchedDesign:
    """Return a design that was searched pool by pool, as the plan shows it."""
    pools = []
    for index, (limit, pool) in enumerate(zip(sized.limits, sized.pools, strict=True)):
        short = index < len(sized.limits) - 1
        model_len = pool.setup.long_context
        flags = pool.setup.flags(model_len, short=short)
        gpus = pool.setup.instance.gpus
        pools.append(PoolPlan(limit, model_len, pool.setup.gpu_name, gpus, pool.instances, flags))
    return SearchedDesign(sized.limits, sized.gpus, tuple(pools), sized.balancing)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is printed, exported and plotted.

    `fleets` are the simulated fleets that meet the objective (empty if nothing was simulated); `searched` are the
    designs from which they were chosen. `failure` is a run of the recommended fleet, including its spares, in
    which one instance of each pool dies, `arrived` one at the trace's own arrival times (null without such times,
    or if all fleets were found with them); `days` are the fleets over a day.
    """

    profile: str
    gpus_per_instance: int
    kv_tokens: int
    max_num_batched_tokens: int
    rate: float
    objective: str
    balancing: str
    workload: WorkloadFigures
    analysis: Analysis
    sensitivity: tuple[Analysis, ...]
    searched: tuple[SearchedDesign, ...]
    fleets: tuple[FleetEstimate, ...]
    failure: FailureRun | None
    arrived: ArrivedRun | None
    days: tuple[DayOfFleet, ...]
    recommendation: str
    notes: tuple[str, ...]
