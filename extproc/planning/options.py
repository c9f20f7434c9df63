"""The command's options as the planner's objects; what cannot be is one sentence that names the option."""

import argparse
from dataclasses import replace
from pathlib import Path

from extproc.core.errors import ConfigurationError
from extproc.planning.hardware.capacity import Instance, smallest_tensor_parallel
from extproc.planning.hardware.catalogue import MAX_BATCHED_TOKENS
from extproc.planning.model.setup import MeasuredRates, Objective, Setup, SlotRule
from extproc.planning.plan import SimulationOptions
from extproc.planning.simulation.fleet import Balance
from extproc.planning.workload.inputs import lengths_of_means, live_input, load_catalogue, load_traces
from extproc.planning.workload.lengths import MAX_TOKENS, Lengths

__all__ = ["check_directory", "check_runs", "setup_of", "simulation_of", "workload_of"]

MAX_SEEDS = 100
MIN_REQUESTS = 2_000  # 20 of them are beyond the 99th percentile
MAX_REQUESTS = 5_000_000  # about a gigabyte while they run
DEFAULT_SECONDS = 60
MAX_RATE = 1e9
# Least and most of each option, in its own unit: what hardware and vLLM can have, and sums of it stay finite.
RANGES = {
    "tp": (1, 1_024),
    "long_context": (1_024, MAX_TOKENS),
    "weight_bytes": (0.25, 8),
    "kv_bytes": (0.25, 8),
    "batched_tokens": (1, MAX_BATCHED_TOKENS),
    "price": (0.01, 1e6),
    "spare": (0, 1e6),
}
MEASURED_RANGE = (1e-6, 1e6)


def workload_of(args: argparse.Namespace) -> tuple[Lengths, float]:
    """Read the lengths, from wherever they come, and the rate in requests per second."""
    given = [name for name in ("trace", "metrics", "mean_tokens") if getattr(args, name) is not None]
    if len(given) != 1:
        raise ConfigurationError("one of --trace, --metrics and --mean-tokens is needed")
    if args.scrape_interval is not None and args.metrics is None:
        raise ConfigurationError(f"--scrape-interval {args.scrape_interval:g}: is only used with --metrics")
    rate: float | None = args.rate
    if args.trace is not None:
        lengths = load_traces(args.trace)
    elif args.metrics is not None:
        live = live_input(args.metrics, args.scrape_interval)
        lengths, rate = live.lengths, args.rate if args.rate is not None else live.rate
    else:
        lengths = lengths_of_means(args.mean_tokens)
    if rate is None:
        raise ConfigurationError("--rate is needed: requests per second (or two scrapes and --scrape-interval)")
    if not 0 < rate <= MAX_RATE:
        raise ConfigurationError(f"rate {rate:g}: requests per second must be positive and at most {MAX_RATE:g}")
    return lengths, rate


def setup_of(args: argparse.Namespace) -> Setup:
    """Return the instance, its pools' limits, the objective and the prices."""
    catalogue = load_catalogue(args.catalogue)
    for name, (least, most) in RANGES.items():
        value = getattr(args, name)
        if value is not None and not least <= value <= most:
            raise ConfigurationError(
                f"--{name.replace('_', '-')} {value:g}: must be at least {least:,} and at most {most:,}"
            )
    model, gpu = catalogue.model(args.model), catalogue.gpu(args.gpu)
    if args.weight_bytes is not None:
        model = replace(model, weight_bytes=args.weight_bytes)
    heads = model.attention.query_heads
    if args.tp is not None and heads % args.tp:
        raise ConfigurationError(
            f"--tp {args.tp}: vLLM gives each GPU as many attention heads, and {args.model} has {heads}: a "
            "divisor of that is needed"
        )
    instance = Instance(model, gpu, args.tp or 1, args.kv_bytes)
    if args.tp is None:
        instance = smallest_tensor_parallel(instance, args.long_context, f"{args.model} on {args.gpu}")
    return Setup(
        model_name=args.model,
        gpu_name=args.gpu,
        instance=instance,
        long_context=args.long_context,
        objective=Objective(args.ttft, args.tpot_ms / 1e3, args.success),
        slots=SlotRule(args.slots),
        spare=args.spare,
        price_usd_h=args.price if args.price is not None else gpu.price_usd_h,
        measured=_measured(args.measured),
        batched_tokens=args.batched_tokens,
    )


def _measured(text: str | None) -> MeasuredRates | None:
    if text is None:
        return None
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigurationError(f"--measured {text!r}: numbers are needed, as in 2.8,11.2,2.8") from error
    if len(rates) not in {3, 4}:
        raise ConfigurationError(f"--measured {text!r}: three or four numbers are needed, as in 2.8,11.2,2.8")
    least, most = MEASURED_RANGE
    if not all(least <= rate <= most for rate in rates):
        raise ConfigurationError(
            f"--measured {text!r}: requests per second must be positive, from {least:g} to {most:,.0f}"
        )
    return MeasuredRates(*rates)


def simulation_of(args: argparse.Namespace, lengths: Lengths, rate: float) -> SimulationOptions | None:
    """Return how fleets are simulated, or None when they are not."""
    if not args.simulate:
        return None
    if args.arrivals == "trace":
        if args.requests is not None:
            raise ConfigurationError(
                f"--requests {args.requests}: with --arrivals trace the trace's own are simulated"
            )
        requests = len(lengths)
    else:
        requests = max(MIN_REQUESTS, round(rate * DEFAULT_SECONDS)) if args.requests is None else args.requests
    check_runs(requests, args.seeds, args.jobs)
    return SimulationOptions(
        requests,
        args.seeds,
        tuple(sorted(set(args.threshold))),
        args.router,
        Balance(args.balance),
        args.arrivals,
        args.jobs,
    )


def check_runs(requests: int, seeds: int, jobs: int) -> None:
    """Raise ConfigurationError for runs that are too short for a 99th percentile, or too many or long to hold."""
    if not (MIN_REQUESTS <= requests <= MAX_REQUESTS and 1 <= seeds <= MAX_SEEDS and jobs >= 1):
        raise ConfigurationError(
            f"--requests {requests}, --seeds {seeds}, --jobs {jobs}: at least {MIN_REQUESTS} and at most "
            f"{MAX_REQUESTS} requests, 1 to {MAX_SEEDS} seeds and 1 process are needed"
        )


def check_directory(option: str, path: str) -> Path:
    """Return the path of a directory that is there or could be made.

    Raises ConfigurationError when a file is in its way: better now than after the simulation.
    """
    directory = Path(path)
    there = next((part for part in (directory, *directory.absolute().parents) if part.exists()), None)
    if there is not None and not there.is_dir():
        raise ConfigurationError(f"{option} {path}: {there} is a file; a directory is needed")
    return directory
