"""The options of `dualpool plan --simulate`, and their conversion to the planner's option objects."""

import argparse
from typing import TYPE_CHECKING

from extproc.core.errors import ConfigurationError

if TYPE_CHECKING:
    from extproc.planning.design.pool import Tuning
    from extproc.planning.hardware.profiles import Catalogue, GpuProfile
    from extproc.planning.simulation.options import SimulationOptions

__all__ = [
    "add_simulation_options",
    "head_room_of",
    "searches_knobs",
    "searches_parallelism",
    "simulation_options",
    "start_minutes_of",
    "tuning_of",
]

MAX_HEAD_ROOM = 16
MAX_START_MINUTES = 720


def add_simulation_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that only --simulate uses."""
    group = parser.add_argument_group("simulation")
    group.add_argument("--simulate", action="store_true", help="find the cheapest fleets by simulating them")
    _add_designs(group)
    _add_traffic(group)
    _add_day(group)
    _add_runs(group)


def _add_designs(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--threshold", type=int, nargs="+", default=[], metavar="TOKENS", help="thresholds to simulate"
    )
    group.add_argument(
        "--tune",
        choices=["all", "parallelism", "none"],
        default="all",
        help="what is searched in each pool: GPUs per instance and vLLM's settings; GPUs per instance; nothing "
        "(default: all)",
    )
    group.add_argument(
        "--pools",
        type=int,
        choices=[2, 3],
        default=2,
        help="largest number of pools; three only by a search (default: %(default)s)",
    )
    group.add_argument(
        "--head-room",
        type=float,
        default=1.25,
        metavar="FACTOR",
        help="ratio of a smaller pool's max_model_len to its routing threshold (default: %(default)g)",
    )


def _add_traffic(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--router",
        choices=["byteclass", "ema", "oracle"],
        default="byteclass",
        help="how prompts are estimated: by the router's byte classes, the paper's mean, or exactly (default: "
        "byteclass)",
    )
    group.add_argument(
        "--balance",
        nargs="+",
        choices=["least-request", "full-scan", "tokens", "round-robin"],
        default=["least-request"],
        help="how a pool picks an instance: Envoy's LEAST_REQUEST among --choice-count drawn at random, the "
        "fewest requests of all, the fewest unanswered prompt tokens of all (Envoy alone cannot), or in turns; "
        "with several, each design uses the cheapest, the earlier one if equal (default: least-request)",
    )
    group.add_argument(
        "--choice-count", type=int, default=2, help="instances that least-request looks at (default: %(default)s)"
    )
    group.add_argument(
        "--spill", action="store_true", help="let requests leave overloaded pools, as the router's `spill` does"
    )
    group.add_argument(
        "--arrivals",
        choices=["poisson", "trace"],
        default="poisson",
        help="when requests arrive: at random, or as in the trace (default: poisson)",
    )


def _add_day(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--day-curve",
        metavar="FILE",
        help="the load over 24 hours, in rows of hour,load, or 'trace': GPU-hours of fleets that follow it; "
        "--rate is the peak",
    )
    group.add_argument(
        "--start-minutes",
        type=float,
        default=5.0,
        metavar="MIN",
        help="time from asking for an instance until it serves, for --day-curve (default: %(default)g)",
    )


def _add_runs(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--requests",
        type=int,
        help="requests per run (default: 60 s of traffic, and more until the results are stable)",
    )
    group.add_argument(
        "--seeds", type=int, default=1, help="runs with different random numbers (default: %(default)s)"
    )
    group.add_argument("--jobs", type=int, default=1, help="processes to use (default: %(default)s)")
    group.add_argument("--cache", metavar="DIR", help="where results are cached; 'none' caches nothing")


def simulation_options(args: argparse.Namespace) -> "SimulationOptions | None":
    """Return the options of the simulation, or None without --simulate."""
    from extproc.planning.simulation.options import SimulationOptions  # noqa: PLC0415

    if not args.simulate:
        return None
    return SimulationOptions(
        requests=args.requests,
        seeds=args.seeds,
        thresholds=tuple(args.threshold),
        router=args.router,
        balance=tuple(args.balance),
        choice_count=args.choice_count,
        arrivals=args.arrivals,
        jobs=args.jobs,
        spill=args.spill,
    )


def tuning_of(args: argparse.Namespace, catalogue: "Catalogue") -> "Tuning":
    """Return what the search may change in each pool; what the user has fixed stays.

    Raises ConfigurationError for several GPUs if a price is missing.
    """
    from extproc.planning.design.pool import Tuning  # noqa: PLC0415

    gpus: tuple[tuple[str, GpuProfile, float | None], ...] = ()
    if len(args.gpu) > 1:
        gpus = tuple((name, gpu := catalogue.gpu(name), gpu.price_usd_h) for name in args.gpu)
        if unknown := [name for name, _, price in gpus if price is None]:
            raise ConfigurationError(
                f"--gpu {' '.join(args.gpu)}: the price of {unknown[0]} is not known; a --catalogue can give it"
            )
    return Tuning(gpus=gpus, parallelism=searches_parallelism(args), knobs=searches_knobs(args))


def searches_parallelism(args: argparse.Namespace) -> bool:
    """Return whether the GPUs per instance are searched."""
    return args.tune != "none" and args.tp is None and args.dp is None


def searches_knobs(args: argparse.Namespace) -> bool:
    """Return whether the scheduler's settings are searched."""
    return args.tune == "all" and args.batched_tokens is None


def head_room_of(args: argparse.Namespace) -> float:
    """Return max_model_len divided by the routing threshold. Raises ConfigurationError if it is out of range."""
    if not 1 <= args.head_room <= MAX_HEAD_ROOM:
        raise ConfigurationError(f"--head-room {args.head_room:g}: a factor from 1 to {MAX_HEAD_ROOM} is needed")
    return float(args.head_room)


def start_minutes_of(args: argparse.Namespace) -> float:
    """Return the start time of an instance. Raises ConfigurationError if it is out of range."""
    if not 0 <= args.start_minutes <= MAX_START_MINUTES:
        raise ConfigurationError(f"--start-minutes {args.start_minutes:g}: 0 to {MAX_START_MINUTES} are allowed")
    return float(args.start_minutes)
