"""Making a plan: cost model, sensitivity, the best fleet of each design, and a recommendation in one sentence."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.planning.design.answer import Plan, WorkloadFigures, searched_design
from extproc.planning.design.choose import Question, Sized, omitted_notes
from extproc.planning.design.day import DayOfFleet, DayQuestion, days_of
from extproc.planning.design.notes import arrival_notes, failure_notes, fleet_notes, memory_notes, workload_notes
from extproc.planning.design.pool import Tuning
from extproc.planning.design.recommend import recommend, recommend_simulated, recommended
from extproc.planning.design.rules import (
    cheapest_outcomes,
    cheapest_rules,
    sized_under_rules,
    with_first_rule,
)
from extproc.planning.model.analytic import analyse, default_thresholds
from extproc.planning.model.costs import Costs, costs_of
from extproc.planning.model.setup import Setup
from extproc.planning.model.splits import Analysis
from extproc.planning.model.times import times_notes
from extproc.planning.simulation.as_arrived import run_as_arrived
from extproc.planning.simulation.cache import ResultCache
from extproc.planning.simulation.options import RunOptions
from extproc.planning.simulation.runner import FleetEstimate, NotMet, search_each
from extproc.planning.simulation.task import Design, SearchTask, run_with_failure
from extproc.planning.workload.day import Day
from extproc.planning.workload.declared import DeclaredRule, budgets
from extproc.planning.workload.lengths import Lengths

__all__ = ["PlanOptions", "make_plan"]

# Shares of requests in the short pool at which two pools are tried if no thresholds are given.
SHORT_SHARES = (0.5, 0.75, 0.9, 0.98)
ROUND = 256  # tokens: proposed thresholds are multiples of it
USUAL = "one pool, {}'s defaults"


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """How a plan is made.

    `runs` is how fleets are simulated (None: cost model only), `tuning` what may be changed in each pool,
    `head_room` max_model_len divided by the routing threshold, `pools` the largest number of pools, `day` the load
    over a day, and `start_minutes` the time an instance takes to start.
    """

    runs: RunOptions | None = None
    tuning: Tuning = field(default_factory=Tuning)
    head_room: float = 1.0
    pools: int = 2
    day: Day | None = None
    start_minutes: float = 5.0


def make_plan(
    lengths: Lengths,
    rate: float,
    setup: Setup,
    rule: DeclaredRule,
    *,
    options: PlanOptions,
    cache: ResultCache,
    progress: Callable[[int, int, str], None],
) -> Plan:
    """Make the plan; raises ConfigurationError if no plan is possible for the input."""
    runs = options.runs
    thresholds = tuple(sorted({*default_thresholds(setup.long_context), *(runs.thresholds if runs else ())}))
    sensitivity = tuple(analyse(lengths, rate, setup, each, thresholds) for each in DeclaredRule)
    analysis = next(one for one in sensitivity if one.rule is rule)
    searched: list[Sized] = []
    tasks: list[SearchTask] = []
    fleets: tuple[FleetEstimate, ...] = ()
    not_met: list[str] = []
    if runs is not None:
        timed = replace(setup, measured=None)  # measured rates are the cost model's alone
        question = Question(lengths, rate, timed, rule, runs.balancing, options.tuning, options.head_room)
        designs, searched = _designs(question, analysis, options, cache, progress)
        tasks = [_task(question, design, runs) for design in designs]
        fleets, not_met = _simulated(tasks, setup, runs, cache, progress)
        not_met += omitted_notes(runs.thresholds, designs)
    costs = costs_of(setup)
    built = _to_build(tasks, fleets, setup)
    failure = run_with_failure(*built) if built is not None and setup.spare > 0 else None
    arrived = run_as_arrived(*built) if built is not None and options.day is None else None  # its rate is a peak
    days, unknown_days = _days(fleets, tasks, costs, options, cache=cache, progress=progress)
    return Plan(
        profile=setup.name,
        gpus_per_instance=setup.instance.gpus,
        kv_tokens=setup.capacity.kv_tokens,
        max_num_batched_tokens=setup.max_batched_tokens,
        rate=rate,
        objective=str(setup.objective),
        balancing=" or ".join(map(str, (runs.balancing, *runs.also))) if runs else "",
        workload=WorkloadFigures.of(lengths),
        analysis=analysis,
        sensitivity=sensitivity,
        searched=tuple(map(searched_design, searched)),
        fleets=fleets,
        failure=failure,
        arrived=arrived,
        days=days,
        recommendation=recommend_simulated(fleets, costs, arrived, spill=runs is not None and runs.spill)
        if fleets
        else recommend(analysis, setup),
        notes=(
            *times_notes(_setups(setup, fleets)),
            *memory_notes(_setups(setup, fleets)),
            *workload_notes(lengths, setup, analysis),
            *not_met,
            *fleet_notes(fleets, runs.router if runs is not None else "byteclass"),
            *unknown_days,
            *failure_notes(failure),
            *(arrival_notes(arrived, stationary=tasks[0].stationary) if fleets else ()),
        ),
    )


def _days(
    fleets: Sequence[FleetEstimate],
    tasks: Sequence[SearchTask],
    costs: Costs,
    options: PlanOptions,
    *,
    cache: ResultCache,
    progress: Callable[[int, int, str], None],
) -> tuple[tuple[DayOfFleet, ...], tuple[str, ...]]:
    """Return what each fleet costs over the day, if one is asked about, and for which of them it is not known."""
    if options.runs is None or options.day is None:
        return (), ()
    tasked = [(fleet, next(task for task in tasks if task.design == fleet.design)) for fleet in fleets]
    asked = DayQuestion(options.day, options.start_minutes, costs)
    return days_of(tasked, asked, options.runs.jobs, cache, progress)


def _simulated(
    tasks: Sequence[SearchTask],
    setup: Setup,
    runs: RunOptions,
    cache: ResultCache,
    progress: Callable[[int, int, str], None],
) -> tuple[tuple[FleetEstimate, ...], list[str]]:
    """Return the smallest fleet of each design that meets the objective, and why others have none.

    Raises ConfigurationError if no design has one.
    """
    found = search_each(tasks, runs.jobs, cache, lambda done, what: progress(done, len(tasks), what))
    outcomes = cheapest_outcomes(found, costs_of(setup))
    fleets = tuple(outcome for outcome in outcomes if isinstance(outcome, FleetEstimate))
    not_met = [outcome.why for outcome in outcomes if isinstance(outcome, NotMet)]
    if not fleets:
        raise ConfigurationError(not_met[0] if not_met else "no design meets the objective with any fleet")
    return fleets, not_met


def _to_build(
    tasks: Sequence[SearchTask], fleets: Sequence[FleetEstimate], setup: Setup
) -> tuple[SearchTask, tuple[int, ...]] | None:
    """Return the recommended fleet's task and its instances, spares included; None without a recommendation."""
    best = recommended(fleets, costs_of(setup))
    if best is None:
        return None
    task = next(task for task in tasks if task.design == best.design)
    return task, costs_of(setup).of(best).instances


def _setups(setup: Setup, fleets: Sequence[FleetEstimate]) -> list[Setup]:
    """Return the instances behind a plan's figures: those of the simulated fleets and that of the cost model."""
    designs = [fleet.design for fleet in fleets]
    return [*(each.setup(index, setup) for each in designs for index in range(len(each.contexts))), setup]


def _designs(
    question: Question,
    analysis: Analysis,
    options: PlanOptions,
    cache: ResultCache,
    progress: Callable[[int, int, str], None],
) -> tuple[list[Design], list[Sized]]:
    """Return the designs to simulate, and all designs that were searched to choose them."""
    runs = options.runs
    assert runs is not None, "designs are for simulating"
    long = question.setup.long_context
    thresholds = runs.thresholds or _thresholds(question, analysis)
    tuning = options.tuning
    if not (tuning.parallelism or tuning.knobs or tuning.gpus or runs.also):
        twos = [Design(f"two pools at {t:,}", (t, long), (), (question.model_len(t), long)) for t in thresholds]
        contexts = sorted({long, analysis.right_sized.context_tokens}, reverse=True)
        return [*(Design(f"one pool of {context:,}", (context,)) for context in contexts), *twos], []
    limits = [(long,), *((t, long) for t in thresholds)]
    if options.pools > 2:  # noqa: PLR2004
        limits += [(a, b, long) for a in thresholds for b in thresholds if a < b]
    sized = sized_under_rules(question, limits, runs, cache, progress)
    best = cheapest_rules(sized)
    chosen = [each for each in best if len(each.limits) == 1]
    for pools in range(2, options.pools + 1):
        of_kind = sorted((each for each in best if len(each.limits) == pools), key=lambda each: each.cost)
        chosen += of_kind if runs.thresholds else of_kind[:1]
    usual = replace(_usual(question.setup, long), balancing=question.balancing if runs.also else None)
    designs = [each.design(_name(each), question) for each in with_first_rule(chosen, sized)]
    return [usual, *designs], sized


def _usual(setup: Setup, context_tokens: int) -> Design:
    """Return one untuned pool, with the engine's default batch size unless one was given."""
    batched_tokens = setup.batched_tokens or setup.largest_batch_tokens
    own = replace(setup, batched_tokens=batched_tokens)
    return Design(USUAL.format(setup.engine.full_name), (context_tokens,), (own,))


def _name(sized: Sized) -> str:
    if len(sized.limits) == 1:
        return f"one pool of {sized.limits[0]:,}, tuned"
    pools = {2: "two", 3: "three"}[len(sized.limits)]
    return f"{pools} pools at {' and '.join(f'{limit:,}' for limit in sized.limits[:-1])}"


def _thresholds(question: Question, analysis: Analysis) -> tuple[int, ...]:
    """Return thresholds at usual shares of the requests and above the length classes of the objective."""
    budget = budgets(question.lengths, question.rule)
    tokens = [float(np.quantile(budget, share)) for share in SHORT_SHARES]
    for each in question.setup.objective.shorter:  # a threshold that holds the class at the router's usual bound
        mine = budget[question.lengths.total <= each.limit]
        tokens.append(float(np.quantile(mine, 0.995)) if len(mine) else each.limit)
    tokens.append(float(analysis.best.threshold))
    rounded = {max(ROUND, -(-round(each) // ROUND) * ROUND) for each in tokens}
    return tuple(sorted(each for each in rounded if each < question.setup.long_context))


def _task(question: Question, design: Design, runs: RunOptions) -> SearchTask:
    return SearchTask(
        design=design,
        setup=question.setup,
        lengths=question.lengths,
        rule=question.rule,
        rate=question.rate,
        requests=runs.requests,
        seeds=runs.seeds,
        router=runs.router,
        balancing=design.balancing or runs.balancing,
        arrivals=runs.arrivals,
        longest=runs.longest,
        spill=runs.spill,
    )
