"""The search, by simulation, for the smallest fleet that meets the objective in steady state.

Pools do not influence each other unless requests spill over, so all of them are searched in the same runs: each
has its own bounds, and `verdict.py` decides which of them is to blame. With spillover a pool that is too small
passes on the requests that it would serve late, so a smaller size is found to suffice: for all pools together, at
the given rate; and what the search finds is made smaller pool by pool (`shrinking.py`). The search starts at the
analytical size, brackets it with growing steps, and bisects until a size that passes is within 1 % (or one
instance) of one that fails. Several seeds give a confidence interval; each seed after the first starts where the
previous one ended.

The required length of a run is not known in advance: a fleet that is overloaded by one per cent looks fine for a
while. So the search is repeated with runs four times as long, starting from the result of the shorter ones, until
two lengths agree within AGREE; the longer one's answer counts. A pool of long answers may take longer to fill than
a short run lasts, whatever its size: only longer runs can show whether it meets the objective. Nor is a size an
answer if smaller ones failed only because their queue grew in runs in which they could not have filled
(`steady.py`): it may be far too large. If `longest` is reached before two lengths agree, the fleet is reported as
not steady, with both sizes. Fixed long runs were rejected: most designs lose early, and most workloads agree at
once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.planning.model.setup import Setup
from extproc.planning.model.throughput import throughput
from extproc.planning.simulation.bracket import Bracket
from extproc.planning.simulation.largest import largest_sizes
from extproc.planning.simulation.run_lengths import run_lengths
from extproc.planning.simulation.shrinking import shrunk
from extproc.planning.simulation.summary import Summary
from extproc.planning.simulation.task import (
    Design,
    SearchTask,
    make_workload,
    router_of,
    run_fleet,
    run_unless_hopeless,
)
from extproc.planning.simulation.verdict import Verdict, verdict
from extproc.planning.workload.lengths import Lengths

__all__ = ["FoundFleet", "ObjectiveNotMet", "rough_fleet", "smallest_fleets"]

FIRST_STEP = 0.1  # of the analytical size
NEXT_STEP = 0.02  # of the size that another seed or shorter runs needed
COARSE = 0.02  # the tolerance of longer runs, which start where shorter ones ended
LONGER = 4  # times as many requests in the next runs
LONGER_ROUGH = 2  # the same where longer runs need not show a steady state, only remove doubt
AGREE = 0.025  # share of the instances
TOO_SHORT = "runs too short to judge"
ROUTED_FIRST = 10_000  # requests routed before the simulation to find each pool's share


class ObjectiveNotMet(ConfigurationError):
    """No fleet of a design meets the objective; the message says which part is missed, and the best value."""


class _StillGrowsError(Exception):
    """Runs are too short: with far more instances than needed, a queue still grows until the end."""


@dataclass(frozen=True, slots=True)
class FoundFleet:
    """The smallest fleet of one design and seed: the instances of each pool, their figures in runs of `requests`,
    the number of runs simulated, and why the fleet is not known to be steady ('' if it is). `shorter` is the size
    found by runs a quarter as long (the same size if there were none). `doubtful` says that smaller sizes failed
    only because their queues grew in runs too short to tell.
    """

    design: Design
    seed: int
    instances: tuple[int, ...]
    summary: Summary
    runs: int
    requests: int = 0
    not_steady: str = ""
    shorter: int = 0
    doubtful: bool = False

    @property
    def total(self) -> int:
        """The instances of all pools."""
        return sum(self.instances)


def smallest_fleets(task: SearchTask, progress: Callable[[int], None] | None = None) -> tuple[FoundFleet, ...]:
    """Search for the smallest fleet with each seed; `progress` is called with the number of requests that the
    current run has processed.

    Raises ObjectiveNotMet if even the largest fleet worth trying (`largest.py`) misses the objective, or if too
    many requests are rejected or truncated whatever the size.
    """
    found: list[FoundFleet] = []
    start, step = _start(task), FIRST_STEP
    for seed in range(1, task.seeds + 1):
        found.append(_steady(task, seed, start, step, progress))
        start, step = found[-1].instances, NEXT_STEP
    return tuple(found)


def rough_fleet(task: SearchTask) -> FoundFleet:
    """Search with one seed and the shortest runs that can tell, for comparing designs: one length is enough unless
    it leaves smaller sizes in doubt. Raises ObjectiveNotMet as `smallest_fleets` does.
    """
    return _steady(task, 1, _start(task), FIRST_STEP, None, rough=True)


def _steady(
    task: SearchTask,
    seed: int,
    start: tuple[int, ...],
    step: float,
    progress: Callable[[int], None] | None,
    *,
    rough: bool = False,
) -> FoundFleet:
    """Repeat the search with longer and longer runs until the answer no longer changes; if `rough`, only until no
    smaller size is in doubt.
    """
    found: FoundFleet | None = None
    lengths = list(run_lengths(task, LONGER_ROUGH if rough else LONGER))
    for requests in lengths:
        brackets = [Bracket(size, step) for size in start]
        if found is not None:
            brackets = [Bracket(size, NEXT_STEP, COARSE) for size in found.instances]
        try:
            again = _search(replace(task, requests=requests), seed, brackets, progress)
        except _StillGrowsError as error:
            if requests == lengths[-1]:
                raise ObjectiveNotMet(str(error)) from error
            found = None
            continue
        if rough and not again.doubtful:
            return again
        if found is None:
            found, why = again, f"only runs of {requests:,} requests are long enough to judge"
            continue
        before, found = found, replace(again, runs=again.runs + found.runs, shorter=found.total)
        if abs(found.total - before.total) > max(1, int(AGREE * found.total)):
            why = f"runs of {before.requests:,} and {requests:,} requests do not agree"
        elif found.not_steady:
            why = f"even runs of {requests:,} requests are too short to judge"
        else:
            return found
    assert found is not None, "the last search found a fleet"
    return replace(found, not_steady=why if len(lengths) > 1 else found.not_steady)


def _search(
    task: SearchTask, seed: int, brackets: list[Bracket], progress: Callable[[int], None] | None
) -> FoundFleet:
    workload = make_workload(task, seed)
    largest = largest_sizes(task, workload, [bracket.start for bracket in brackets])
    simulated: dict[tuple[int, ...], Summary | None] = {}

    def passes(sizes: tuple[int, ...]) -> bool:
        if sizes not in simulated:
            simulated[sizes] = run_unless_hopeless(task, workload, sizes, progress)
        again = simulated[sizes]
        return again is not None and all(verdict(again, task.setup.objective).passed)

    while True:
        sizes = tuple(bracket.size for bracket in brackets)
        if sizes not in simulated:  # the final size has often been simulated already
            # The first run yields the success rate, the largest fleet the nearest miss: both run to their end.
            whole = not simulated or any(size > most for size, most in zip(sizes, largest, strict=True))
            run = run_fleet if whole else run_unless_hopeless
            simulated[sizes] = run(task, workload, sizes, progress)
        summary = simulated[sizes]
        passed = doubtful = (False,) * len(brackets)
        if summary is not None:
            _check_success(task, summary)
            judged = verdict(summary, task.setup.objective)
            _check_reachable(task, sizes, largest, judged)
            passed = judged.passed
            doubtful = judged.doubtful
            if all(passed) and all(bracket.done for bracket in brackets):
                doubt = any(bracket.doubtful for bracket in brackets)
                if task.spill:
                    sizes = shrunk(sizes, [each.instance_cost for each in _setups(task)], passes)
                    summary = simulated[sizes] or summary
                why = TOO_SHORT if doubt or summary.too_short else ""
                runs, total = len(simulated), sum(sizes)
                return FoundFleet(task.design, seed, sizes, summary, runs, task.requests, why, total, doubt)
        for bracket, good, doubt in zip(brackets, passed, doubtful, strict=True):
            bracket.judge(passed=good, doubtful=doubt)


def _setups(task: SearchTask) -> list[Setup]:
    """Return the instances of each pool."""
    return [task.design.setup(index, task.setup) for index in range(len(task.design.contexts))]


def _start(task: SearchTask) -> tuple[int, ...]:
    """Return each pool's analytical size for the requests that the router sends there."""
    contexts, setup = task.design.contexts, task.setup
    workload = make_workload(task, seed=1)
    router = router_of(task, workload)
    routed = min(len(workload), ROUTED_FIRST)
    chosen = np.zeros(routed, np.int64)
    for request in range(routed):
        chosen[request] = router.place(request)
        router.learn(request, int(workload.output[request]))
    lengths = Lengths(workload.prompt[:routed], workload.output[:routed], task.lengths.source)
    sizes = []
    for index in range(len(contexts)):
        routed_here = chosen == index
        share = float(routed_here.mean())
        if share == 0:
            sizes.append(1)
            continue
        each, limits = task.design.setup(index, setup), task.design.limits(index, setup)
        tpot_s = each.objective.tightest_tpot_s
        mu = throughput(lengths.subset(routed_here), each.cost, limits, tpot_s).requests_per_s
        # Without a rate from the cost model, start from one instance.
        sizes.append(max(1, ceil(share * task.rate / mu)) if mu > 0 else 1)
    return tuple(sizes)


def _check_success(task: SearchTask, summary: Summary) -> None:
    required = task.setup.objective.success
    if summary.success < required:
        raise ObjectiveNotMet(
            f"{task.design.name}: objective success {required:.2%}: no fleet meets it, the best is "
            f"{summary.success:.3%}; {summary.rejected:.3%} of the requests do not fit "
            f"{task.design.contexts[-1]:,} tokens with the output that they declare and {summary.truncated:.3%} "
            "are cut short, whatever the number of instances"
        )


def _check_reachable(task: SearchTask, sizes: tuple[int, ...], largest: tuple[int, ...], judged: Verdict) -> None:
    missed = " and ".join(map(str, judged.misses))
    for size, most, passed in zip(sizes, largest, judged.passed, strict=True):
        if passed or size <= most:
            continue
        if judged.only_grows:
            raise _StillGrowsError(
                f"{task.design.name}: runs of {task.requests:,} requests are too short to judge: even with "
                f"{size:,} instances: {missed}; use longer runs (--requests)"
            )
        raise ObjectiveNotMet(
            f"{task.design.name}: no fleet that was tried meets the objective; even with "
            f"{size:,} instances: {missed}"
        )
