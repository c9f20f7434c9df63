"""The smallest fleet that meets the objective, found by simulating.

Pools do not influence each other (there is no spill-over yet), so both are searched in the same runs: each has its
own bounds, and is judged by its own requests. For two pools that is stricter than judging all requests together,
where a starved long pool could hide behind 99 % short requests. The search starts at the analytical size, brackets
by growing steps, and bisects until a size that passes is within 1 % (or one instance) of one that fails. Several
seeds give a confidence interval; each seed after the first starts where the one before it ended.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.core.estimator import make_estimator
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.placing.policy import Pool, Pools
from extproc.core.router.learning_budget import LearningBudget, LearningSettings
from extproc.planning.model.setup import Setup
from extproc.planning.model.throughput import throughput
from extproc.planning.simulation.fleet import Balance, PoolSpec, simulate
from extproc.planning.simulation.routers import LearningRouter, OnePoolRouter, OracleRouter, Router
from extproc.planning.simulation.summary import Latency, Summary, first_measured, misses, summarise
from extproc.planning.simulation.watch import Watch
from extproc.planning.workload.arrivals import Workload, poisson_workload, trace_workload
from extproc.planning.workload.declared import DeclaredRule, undeclared_output_tokens
from extproc.planning.workload.lengths import Lengths

__all__ = [
    "Design",
    "FoundFleet",
    "ObjectiveNotMet",
    "RouterKind",
    "SearchTask",
    "make_workload",
    "run_fleet",
    "smallest_fleets",
]

RouterKind = Literal["byteclass", "ema", "oracle"]
MOST_TIMES_THE_START = 8
FIRST_STEP = 0.1  # of the analytical size
NEXT_STEP = 0.02  # of the size that another seed needed
TOLERANCE = 0.01
ROUTED_FIRST = 10_000  # requests that tell each pool's share before anything is simulated


class ObjectiveNotMet(ConfigurationError):
    """No fleet of one design meets the objective; the message says which part, and how near it comes."""


@dataclass(frozen=True, slots=True)
class Design:
    """One kind of fleet: contexts of its pools in ascending order (one or two); the first is the threshold of
    two.
    """

    name: str
    contexts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SearchTask:
    """Everything that one search depends on; it can be sent to another process and hashed."""

    design: Design
    setup: Setup
    lengths: Lengths
    rule: DeclaredRule
    rate: float
    requests: int
    seeds: int
    router: RouterKind = "byteclass"
    balance: Balance = Balance.LEAST_LOADED
    arrivals: Literal["poisson", "trace"] = "poisson"


@dataclass(frozen=True, slots=True)
class FoundFleet:
    """The smallest fleet of one design and seed: instances of each pool, how it did, and how many runs it took."""

    design: Design
    seed: int
    instances: tuple[int, ...]
    summary: Summary
    runs: int

    @property
    def total(self) -> int:
        """Instances of all pools."""
        return sum(self.instances)


@dataclass(slots=True)
class _Bracket:
    """Bounds of one pool's size: the largest known to fail, the smallest known to pass."""

    start: int
    step: float
    fails: int = 0
    passes: int | None = None
    size: int = 0

    def __post_init__(self) -> None:
        self.size = self.start

    @property
    def done(self) -> bool:
        return self.passes is not None and self.passes - self.fails <= max(1, int(TOLERANCE * self.passes))

    def judge(self, *, passed: bool) -> None:
        """Note the outcome at `size` and choose the next one.

        The other pool's size changes the order in which the router learns, so a pool that passed may fail later at
        the same size: then it needs one more.
        """
        if self.done:
            self.size = self.passes = self.size if passed else self.size + 1
            return
        if passed:
            self.passes = self.size if self.passes is None else min(self.passes, self.size)
        else:
            self.fails = max(self.fails, self.size)
        if self.done:
            assert self.passes is not None
            self.size = self.passes
        elif self.passes is None:
            self.size = max(self.size + 1, ceil(self.size * (1 + self.step)))
        elif self.fails == 0:
            self.size = max(1, min(self.size - 1, int(self.size * (1 - self.step))))
        else:
            self.size = (self.passes + self.fails) // 2
        self.step = min(2 * self.step, 0.8)


def make_workload(task: SearchTask, seed: int) -> Workload:
    """Draw the requests of a task for one seed."""
    rng = np.random.default_rng(seed)
    if task.arrivals == "trace":
        return trace_workload(task.lengths, task.rate, task.rule, rng)
    return poisson_workload(task.lengths, task.rate, task.requests, task.rule, rng)


def run_fleet(
    task: SearchTask, workload: Workload, instances: tuple[int, ...], progress: Callable[[int], None] | None = None
) -> Summary:
    """Simulate one fleet of the task's design."""
    specs = _specs(task, instances)
    return summarise(simulate(workload, specs, _router(task, workload), task.balance, progress))


def _run_unless_hopeless(
    task: SearchTask, workload: Workload, instances: tuple[int, ...], progress: Callable[[int], None] | None
) -> Summary | None:
    """Simulate one fleet, or return None once every pool is sure to miss the objective."""
    first, pools = first_measured(len(workload)), len(instances)
    watch = Watch(task.setup.objective, first, len(workload) - first, [0] * pools, [[0, 0] for _ in range(pools)])
    router = _router(task, workload)
    run = simulate(workload, _specs(task, instances), router, task.balance, progress, watch=watch)
    return None if run.stopped else summarise(run)


def _specs(task: SearchTask, instances: tuple[int, ...]) -> tuple[PoolSpec, ...]:
    contexts = task.design.contexts
    return tuple(
        PoolSpec(
            f"{context:,}", count, task.setup.limits(context, short=index < len(contexts) - 1), task.setup.cost
        )
        for index, (context, count) in enumerate(zip(contexts, instances, strict=True))
    )


def smallest_fleets(task: SearchTask, progress: Callable[[int], None] | None = None) -> tuple[FoundFleet, ...]:
    """Search the smallest fleet for each seed; `progress` is told how many requests the current run has seen.

    Raises ObjectiveNotMet when even a fleet of eight times the analytical size misses the objective.
    """
    found: list[FoundFleet] = []
    start, step = _start(task), FIRST_STEP
    for seed in range(1, task.seeds + 1):
        found.append(_search(task, seed, [_Bracket(size, step) for size in start], progress))
        start, step = found[-1].instances, NEXT_STEP
    return tuple(found)


def _search(
    task: SearchTask, seed: int, brackets: list[_Bracket], progress: Callable[[int], None] | None
) -> FoundFleet:
    workload = make_workload(task, seed)
    simulated: dict[tuple[int, ...], Summary | None] = {}
    while True:
        sizes = tuple(bracket.size for bracket in brackets)
        if sizes not in simulated:  # the final size has often passed before
            # The first run tells the success, the largest how near it comes: they are run to their end.
            whole = not simulated or any(b.size > MOST_TIMES_THE_START * b.start for b in brackets)
            run = run_fleet if whole else _run_unless_hopeless
            simulated[sizes] = run(task, workload, sizes, progress)
        summary = simulated[sizes]
        passed = [False] * len(brackets)
        if summary is not None:
            _check_success(task, summary)
            _check_reachable(task, brackets, summary.by_pool)
            passed = [not misses(latency, task.setup.objective) for latency in summary.by_pool]
            if all(passed) and all(bracket.done for bracket in brackets):
                return FoundFleet(task.design, seed, sizes, summary, len(simulated))
        for bracket, good in zip(brackets, passed, strict=True):
            bracket.judge(passed=good)


def _router(task: SearchTask, workload: Workload) -> Router:
    contexts = task.design.contexts
    if len(contexts) == 1:
        return OnePoolRouter()
    pools = Pools([Pool(f"{context}", context) for context in contexts])
    if task.router == "oracle":
        return OracleRouter(workload, pools)
    settings = EstimatorSettings(kind=task.router, default_output_tokens=undeclared_output_tokens(task.lengths))
    # The paper's mean learns from every answer, as in the paper; the router of its own learns within its budget.
    learning = LearningBudget(LearningSettings()) if task.router == "byteclass" else None
    return LearningRouter(workload, pools, make_estimator(settings), learning)


def _start(task: SearchTask) -> tuple[int, ...]:
    """Return the analytical size of each pool, for the requests that the router sends there."""
    contexts, setup = task.design.contexts, task.setup
    workload = make_workload(task, seed=1)
    router = _router(task, workload)
    routed = min(len(workload), ROUTED_FIRST)
    chosen = np.zeros(routed, np.int64)
    for request in range(routed):
        chosen[request] = router.place(request)
        router.learn(request, int(workload.output[request]))
    lengths = Lengths(workload.prompt[:routed], workload.output[:routed], task.lengths.source)
    sizes = []
    for index, context in enumerate(contexts):
        mine = chosen == index
        share = float(mine.mean())
        if share == 0:
            sizes.append(1)
            continue
        limits = setup.limits(context, short=index < len(contexts) - 1)
        mu = throughput(lengths.subset(mine), setup.cost, limits, setup.objective.tpot_s).requests_per_s
        # Where the cost model knows no rate the simulator starts from one instance.
        sizes.append(max(1, ceil(share * task.rate / mu)) if mu > 0 else 1)
    return tuple(sizes)


def _check_success(task: SearchTask, summary: Summary) -> None:
    asked = task.setup.objective.success
    if summary.success < asked:
        raise ObjectiveNotMet(
            f"{task.design.name}: objective success {asked:.2%}: met by no fleet, the nearest is "
            f"{summary.success:.3%}; {summary.rejected:.3%} of the requests are longer than "
            f"{task.design.contexts[-1]:,} tokens and {summary.truncated:.3%} are cut short, whatever the "
            "number of instances"
        )


def _check_reachable(task: SearchTask, brackets: list[_Bracket], groups: tuple[Latency, ...]) -> None:
    for bracket, latency in zip(brackets, groups, strict=True):
        missed = misses(latency, task.setup.objective)
        if missed and bracket.size > MOST_TIMES_THE_START * bracket.start:
            raise ObjectiveNotMet(
                f"{task.design.name}: no fleet meets the objective; with {bracket.size:,} instances it is "
                f"still {' and '.join(map(str, missed))}"
            )
