"""One fleet of a design under a workload: the inputs of a search, and single runs of such a fleet."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from extproc.core.estimator import make_estimator
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.placing.policy import Pool, Pools
from extproc.core.router.learning_budget import LearningBudget, LearningSettings
from extproc.planning.model.setup import Setup
from extproc.planning.model.throughput import InstanceLimits
from extproc.planning.simulation.balancing import ENVOYS_DEFAULT, Balancing
from extproc.planning.simulation.fleet import simulate
from extproc.planning.simulation.pool import PoolSpec
from extproc.planning.simulation.routers import LearningRouter, OnePoolRouter, OracleRouter, Router
from extproc.planning.simulation.spilling import SimulatedSpill
from extproc.planning.simulation.summary import Summary, first_measured, summarise
from extproc.planning.simulation.verdict import not_judged, verdict
from extproc.planning.simulation.watch import watch_for
from extproc.planning.workload.arrivals import Workload, poisson_workload, trace_workload
from extproc.planning.workload.declared import DeclaredRule, undeclared_output_tokens
from extproc.planning.workload.lengths import Lengths

__all__ = [
    "Design",
    "FailureRun",
    "RouterKind",
    "SearchTask",
    "make_workload",
    "router_of",
    "run_fleet",
    "run_unless_hopeless",
    "run_with_failure",
]

RouterKind = Literal["byteclass", "ema", "oracle"]


@dataclass(frozen=True, slots=True)
class Design:
    """One kind of fleet: the limits of its pools, in ascending order.

    `contexts` are the largest budgets that the router sends to each pool (for the last one: its max_model_len);
    with two pools the first is the threshold. `model_lens` are the pools' max_model_len if larger than that
    (head-room), `setups` the pools' own instances and knobs if they differ from the task's. `balancing` is the
    design's own rule if several were searched; None is the task's.
    """

    name: str
    contexts: tuple[int, ...]
    setups: tuple[Setup, ...] = ()
    model_lens: tuple[int, ...] = ()
    balancing: Balancing | None = None

    def setup(self, index: int, default: Setup) -> Setup:
        """Return the instance and knobs of one pool."""
        return self.setups[index] if self.setups else default

    def limits(self, index: int, default: Setup) -> InstanceLimits:
        """Return the limits of an instance of one pool."""
        context = self.model_lens[index] if self.model_lens else self.contexts[index]
        return self.setup(index, default).limits(context, short=index < len(self.contexts) - 1)


@dataclass(frozen=True, slots=True)
class SearchTask:
    """Everything that one search depends on; it can be sent to another process and hashed.

    `requests` is the length of the first runs, `longest` the limit for longer ones (0: as long as the first).
    """

    design: Design
    setup: Setup
    lengths: Lengths
    rule: DeclaredRule
    rate: float
    requests: int
    seeds: int
    router: RouterKind = "byteclass"
    balancing: Balancing = ENVOYS_DEFAULT
    arrivals: Literal["poisson", "trace"] = "poisson"
    longest: int = 0
    spill: bool = False

    @property
    def stationary(self) -> bool:
        """Whether requests arrive at one rate, so that runs settle; a trace's own arrivals follow its load."""
        return self.arrivals != "trace"


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
    run = simulate(workload, specs, router_of(task, workload), task.balancing, progress)
    return summarise(run, task.setup.objective, stationary=task.stationary)


@dataclass(frozen=True, slots=True)
class FailureRun:
    """A run in which the busiest instance of each pool died halfway: the requests that started over, and the parts
    of the objective that were missed, and the classes too rare in it to be judged.
    """

    instances: tuple[int, ...]
    requests: int
    restarted: int
    misses: tuple[str, ...]
    not_judged: tuple[str, ...] = ()


def run_with_failure(task: SearchTask, instances: tuple[int, ...]) -> FailureRun:
    """Simulate one fleet in which an instance of each pool dies after half of the requests have arrived."""
    workload = make_workload(task, 1)
    router = router_of(task, workload)
    specs = _specs(task, instances)
    run = simulate(workload, specs, router, task.balancing, fails_at=len(workload) // 2)
    # The pool of the survivors is busier than before: a step that is no growth, and no warm-up.
    objective = task.setup.objective
    summary = summarise(run, objective, stationary=False)
    misses = tuple(map(str, verdict(summary, objective).misses))
    rare = not_judged(summary, objective, task.lengths.total)
    return FailureRun(instances, len(workload), run.restarted, misses, rare)


def run_unless_hopeless(
    task: SearchTask, workload: Workload, instances: tuple[int, ...], progress: Callable[[int], None] | None
) -> Summary | None:
    """Simulate one fleet; return None if every pool is certain to miss the objective."""
    total = workload.prompt + workload.output
    first = first_measured(len(workload), stationary=task.stationary)
    watch = watch_for(task.setup.objective, total, first, len(instances))
    router = router_of(task, workload)
    run = simulate(workload, _specs(task, instances), router, task.balancing, progress, watch=watch)
    return None if run.stopped else summarise(run, task.setup.objective, stationary=task.stationary)


def _specs(task: SearchTask, instances: tuple[int, ...]) -> tuple[PoolSpec, ...]:
    design = task.design
    return tuple(
        PoolSpec(f"{context:,}", count, design.limits(index, task.setup), design.setup(index, task.setup).cost)
        for index, (context, count) in enumerate(zip(design.contexts, instances, strict=True))
    )


def router_of(task: SearchTask, workload: Workload) -> Router:
    """Return the router of a task."""
    contexts = task.design.contexts
    if len(contexts) == 1:
        return OnePoolRouter()
    lens = task.design.model_lens or contexts
    pools = Pools([Pool(f"{limit}", limit, held) for limit, held in zip(contexts, lens, strict=True)])
    if task.router == "oracle":
        return OracleRouter(workload, pools)
    settings = EstimatorSettings(kind=task.router, default_output_tokens=undeclared_output_tokens(task.lengths))
    # The paper's mean learns from every response, as in the paper; our own estimator learns within its budget.
    learning = LearningBudget(LearningSettings()) if task.router == "byteclass" else None
    spill = SimulatedSpill(pools) if task.spill else None
    return LearningRouter(workload, pools, make_estimator(settings), learning, spill=spill)
