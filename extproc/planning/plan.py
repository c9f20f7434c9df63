"""The whole answer to one question: cost model, sensitivity, simulated fleets, and one sentence to act on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from extproc.planning.analytic import Analysis, analyse, default_thresholds
from extproc.planning.cache import ResultCache
from extproc.planning.declared import DeclaredRule
from extproc.planning.fleet import Balance
from extproc.planning.lengths import Lengths
from extproc.planning.runner import FleetEstimate, search_all
from extproc.planning.search import Design, RouterKind, SearchTask
from extproc.planning.setup import Setup

__all__ = ["Plan", "SimulationOptions", "WorkloadFigures", "make_plan"]

# Shares of requests in the short pool at which two pools are simulated when no thresholds are given.
SIMULATED_ALPHAS = (0.5, 0.75, 0.9, 0.98)


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
    """Everything that is printed, exported and plotted. `fleets` is empty when nothing was simulated."""

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
    fleets: tuple[FleetEstimate, ...] = ()
    if simulation is not None:
        tasks = _tasks(lengths, rate, setup, analysis, simulation)
        fleets = search_all(tasks, simulation.jobs, cache, lambda done, what: progress(done, len(tasks), what))
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
        recommendation=_simulated_sentence(fleets, analysis, setup) if fleets else _sentence(analysis, setup),
        notes=_notes(lengths, setup),
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


def _notes(lengths: Lengths, setup: Setup) -> tuple[str, ...]:
    notes = [lengths.note] if lengths.note else []
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


def _sentence(analysis: Analysis, setup: Setup) -> str:
    best, one = analysis.best, analysis.right_sized
    break_even = best.break_even_rate
    if analysis.two_pools_pay:
        below = f"; below {break_even:,.0f} req/s keep one pool" if break_even else ""
        money = _money(setup, one.instances - best.instances)
        return (
            f"two pools at {best.threshold:,} tokens: {best.instances} instead of {one.instances} "
            f"instances{money}{below}"
        )
    later = f"at this threshold they pay from {break_even:,.0f} req/s on" if break_even else "they pay at no rate"
    return (
        f"keep one pool of {one.context_tokens:,} tokens: it needs {one.instances} instances, two pools at "
        f"best {best.instances} (at {best.threshold:,} tokens); {later}"
    )


def _simulated_sentence(fleets: Sequence[FleetEstimate], analysis: Analysis, setup: Setup) -> str:
    """Recommend from simulated fleets; spares are added to both sides as in the cost model."""
    one = next(f for f in reversed(fleets) if len(f.design.contexts) == 1)
    best = min((f for f in fleets if len(f.design.contexts) > 1), key=lambda f: f.instances)
    one_size, best_size = one.typical.total + setup.spare, best.typical.total + 2 * setup.spare
    if best_size < one_size:
        money = _money(setup, one_size - best_size)
        chosen = next((s for s in analysis.splits if s.threshold == best.design.contexts[0]), analysis.best)
        below = f"; below {chosen.break_even_rate:,.0f} req/s keep one pool" if chosen.break_even_rate else ""
        return (
            f"two pools at {best.design.contexts[0]:,} tokens: {best_size} instead of {one_size} "
            f"instances{money}{below} (simulated)"
        )
    return (
        f"keep one pool of {one.design.contexts[0]:,} tokens: it needs {one_size} instances, two pools at best "
        f"{best_size} (at {best.design.contexts[0]:,} tokens; simulated)"
    )


def _money(setup: Setup, instances: int) -> str:
    usd = setup.usd_per_year(instances)
    return "" if usd is None else f", saves ${usd / 1e3:,.0f}K a year"
