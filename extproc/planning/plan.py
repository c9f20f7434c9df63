"""The whole answer to one question: cost model, sensitivity, simulated fleets, and one sentence to act on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.planning.model.analytic import Analysis, analyse, default_thresholds
from extproc.planning.model.setup import Setup
from extproc.planning.output.recommend import recommend, recommend_simulated
from extproc.planning.simulation.cache import ResultCache
from extproc.planning.simulation.fleet import Balance
from extproc.planning.simulation.runner import FleetEstimate, NotMet, search_each
from extproc.planning.simulation.search import Design, RouterKind, SearchTask
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.lengths import Lengths

__all__ = ["Plan", "SimulationOptions", "WorkloadFigures", "make_plan"]

# Shares of requests in the short pool at which two pools are simulated when no thresholds are given.
SIMULATED_ALPHAS = (0.5, 0.75, 0.9, 0.98)
LONG_RUN_S = 600.0


@dataclass(frozen=True, slots=True)
class SimulationOptions:
    """How fleets are simulated; `thresholds` is empty for a choice of its own."""

    requests: int
    seeds: int
    thresholds: tuple[int, ...] = ()
    router: RouterKind = "byteclass"
    balance: Balance = Balance.LEAST_LOADED
    arrivals: Literal["poisson", "trace"] = "poisson"
    jobs: int = 1


@dataclass(frozen=True, slots=True)
class WorkloadFigures:
    """A workload in a few figures (tokens)."""

    source: str
    requests: int
    mean_prompt: float
    mean_output: float
    p50_total: int
    p99_total: int
    max_total: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is printed, exported and plotted. `fleets` are those that meet the objective, none when
    nothing was simulated.
    """

    profile: str
    gpus_per_instance: int
    kv_tokens: int
    max_num_batched_tokens: int
    rate: float
    workload: WorkloadFigures
    analysis: Analysis
    sensitivity: tuple[Analysis, ...]
    fleets: tuple[FleetEstimate, ...]
    recommendation: str
    notes: tuple[str, ...]


def make_plan(
    lengths: Lengths,
    rate: float,
    setup: Setup,
    rule: DeclaredRule,
    *,
    simulation: SimulationOptions | None,
    cache: ResultCache,
    progress: Callable[[int, int, str], None],
) -> Plan:
    """Answer the question; raises ConfigurationError for input that has no answer."""
    thresholds = default_thresholds(setup.long_context)
    if simulation is not None and simulation.thresholds:
        thresholds = tuple(sorted({*thresholds, *simulation.thresholds}))
    sensitivity = tuple(analyse(lengths, rate, setup, each, thresholds) for each in DeclaredRule)
    analysis = next(one for one in sensitivity if one.rule is rule)
    outcomes: tuple[FleetEstimate | NotMet, ...] = ()
    if simulation is not None:
        tasks = _tasks(lengths, rate, setup, analysis, simulation)
        outcomes = search_each(tasks, simulation.jobs, cache, lambda done, what: progress(done, len(tasks), what))
    fleets = tuple(outcome for outcome in outcomes if isinstance(outcome, FleetEstimate))
    not_met = [outcome.why for outcome in outcomes if isinstance(outcome, NotMet)]
    if not_met and not fleets:
        raise ConfigurationError(not_met[0])
    return Plan(
        profile=setup.name,
        gpus_per_instance=setup.instance.tensor_parallel,
        kv_tokens=setup.capacity.kv_tokens,
        max_num_batched_tokens=setup.max_batched_tokens,
        rate=rate,
        workload=_figures(lengths),
        analysis=analysis,
        sensitivity=sensitivity,
        fleets=fleets,
        recommendation=recommend_simulated(fleets, analysis, setup) if fleets else recommend(analysis, setup),
        notes=(*_notes(lengths, setup, analysis), *not_met, *_run_notes(rate, simulation)),
    )


def _tasks(
    lengths: Lengths, rate: float, setup: Setup, analysis: Analysis, options: SimulationOptions
) -> list[SearchTask]:
    long, right = setup.long_context, analysis.right_sized.context_tokens
    designs = [Design(f"one pool of {long:,}", (long,))]
    if right < long:
        designs.append(Design(f"one pool of {right:,}", (right,)))
    thresholds = options.thresholds or _thresholds_to_simulate(analysis)
    designs += [Design(f"two pools at {t:,}", (t, long)) for t in thresholds]
    return [
        SearchTask(
            design,
            setup,
            lengths,
            analysis.rule,
            rate,
            options.requests,
            options.seeds,
            options.router,
            options.balance,
            options.arrivals,
        )
        for design in designs
    ]


def _thresholds_to_simulate(analysis: Analysis) -> tuple[int, ...]:
    chosen = {analysis.best.threshold}
    for alpha in SIMULATED_ALPHAS:
        chosen.add(min(analysis.splits, key=lambda split: abs(split.alpha - alpha)).threshold)
    return tuple(sorted(chosen))


def _run_notes(rate: float, simulation: SimulationOptions | None) -> tuple[str, ...]:
    if simulation is None or simulation.requests / rate >= LONG_RUN_S:
        return ()
    note = (
        f"Each simulated run is {simulation.requests / rate:,.0f} s of traffic: a fleet that is overloaded by a "
        "per cent or two passes in so short a time. More with --requests."
    )
    return (note,)


def _notes(lengths: Lengths, setup: Setup, analysis: Analysis) -> tuple[str, ...]:
    notes = [lengths.note] if lengths.note else []
    if analysis.out_of_reach:
        thresholds = ", ".join(f"{t:,}" for t in analysis.out_of_reach)
        notes.append(f"At these thresholds one of two pools cannot meet the TPOT with its requests: {thresholds}.")
    if setup.measured is not None:
        notes.append("Measured rates are used at every threshold; they hold at the one they were measured with.")
    if setup.price_usd_h is None:
        notes.append("No price is known for this GPU: give one with --price to see money.")
    return tuple(notes)


def _figures(lengths: Lengths) -> WorkloadFigures:
    median, tail = np.percentile(lengths.total, [50, 99])
    return WorkloadFigures(
        source=lengths.source,
        requests=len(lengths),
        mean_prompt=float(lengths.prompt.mean()),
        mean_output=float(lengths.output.mean()),
        p50_total=round(median),
        p99_total=round(tail),
        max_total=int(lengths.total.max()),
    )
