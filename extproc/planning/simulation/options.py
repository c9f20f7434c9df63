"""Simulation options of the command line, and the run lengths that follow from them."""

from dataclasses import dataclass
from typing import Literal

from extproc.core.errors import ConfigurationError
from extproc.planning.simulation.balancing import Balance, Balancing
from extproc.planning.simulation.task import RouterKind
from extproc.planning.workload.arrivals import check_arrivals
from extproc.planning.workload.lengths import Lengths

__all__ = ["RunOptions", "SimulationOptions", "check_runs", "runs_of"]

MAX_SEEDS = 100
MIN_REQUESTS = 2_000  # 20 of them are beyond the 99th percentile
MAX_REQUESTS = 5_000_000  # about 1 GB of memory during a run
DEFAULT_SECONDS = 60
LONGEST = 16  # times the length of the first runs: the limit for runs that look for a steady state
MIN_CHOICES, MAX_CHOICES = 2, 100  # Envoy takes no choice_count of 1


@dataclass(frozen=True, slots=True)
class SimulationOptions:
    """Options of `dualpool plan --simulate`. Without `requests`, runs start at 60 s of traffic (at least 2,000
    requests) and get longer until the answer no longer changes. Without `thresholds` the planner chooses its own.
    If `balance` names several rules, each design uses the one that is best for it.
    """

    requests: int | None = None
    seeds: int = 1
    thresholds: tuple[int, ...] = ()
    router: RouterKind = "byteclass"
    balance: tuple[str, ...] = ("least-request",)
    choice_count: int = 2
    arrivals: Literal["poisson", "trace"] = "poisson"
    jobs: int = 1
    spill: bool = False


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Settings shared by all searches of a plan; see `SearchTask`. `also` holds further balancing rules that
    designs are searched with.
    """

    requests: int
    longest: int
    seeds: int
    thresholds: tuple[int, ...]
    router: RouterKind
    balancing: Balancing
    arrivals: Literal["poisson", "trace"]
    jobs: int
    spill: bool = False
    also: tuple[Balancing, ...] = ()


def runs_of(options: SimulationOptions, lengths: Lengths, rate: float) -> RunOptions:
    """Return the settings of the runs, including their length; raises ConfigurationError if they cannot be run."""
    if options.arrivals == "trace":
        check_arrivals(lengths)
        if options.requests is not None:
            raise ConfigurationError(
                f"--requests {options.requests}: not used with --arrivals trace, which simulates the whole trace"
            )
        requests = longest = len(lengths)
        if not MIN_REQUESTS <= requests <= MAX_REQUESTS:
            raise ConfigurationError(
                f"--arrivals trace: {lengths.source} has {requests:,} requests, and all are simulated: at least "
                f"{MIN_REQUESTS:,} and at most {MAX_REQUESTS:,} are needed"
            )
    elif options.requests is not None:
        requests = longest = options.requests
    else:
        requests = max(MIN_REQUESTS, round(rate * DEFAULT_SECONDS))
        if requests > MAX_REQUESTS:
            raise ConfigurationError(
                f"--simulate: {DEFAULT_SECONDS} s at {rate:,g} requests per second are {requests:,}, and at most "
                f"{MAX_REQUESTS:,} are simulated: plan a part of the rate; instances are nearly proportional"
            )
        longest = min(MAX_REQUESTS, LONGEST * requests)
    check_runs(requests, options.seeds, options.jobs)
    if options.spill and options.router == "oracle":
        raise ConfigurationError("--spill: needs --router byteclass or ema; the oracle ignores loads")
    if not MIN_CHOICES <= options.choice_count <= MAX_CHOICES:
        raise ConfigurationError(
            f"--choice-count {options.choice_count}: must be from {MIN_CHOICES} to {MAX_CHOICES}"
        )
    first, *also = (Balancing(Balance(name), options.choice_count) for name in dict.fromkeys(options.balance))
    return RunOptions(
        requests=requests,
        longest=longest,
        seeds=options.seeds,
        thresholds=tuple(sorted(set(options.thresholds))),
        router=options.router,
        balancing=first,
        arrivals=options.arrivals,
        jobs=options.jobs,
        spill=options.spill,
        also=tuple(also),
    )


def check_runs(requests: int, seeds: int, jobs: int) -> None:
    """Raise ConfigurationError if runs are too short for a 99th percentile, too long, or too many."""
    if not (MIN_REQUESTS <= requests <= MAX_REQUESTS and 1 <= seeds <= MAX_SEEDS and jobs >= 1):
        raise ConfigurationError(
            f"--requests {requests}, --seeds {seeds}, --jobs {jobs}: at least {MIN_REQUESTS} and at most "
            f"{MAX_REQUESTS} requests, 1 to {MAX_SEEDS} seeds and 1 process are needed"
        )
