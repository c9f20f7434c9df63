"""The command's options as the planner's objects; what cannot be is one sentence that names the option."""

import argparse
from dataclasses import replace
from math import inf

from extproc.core.errors import ConfigurationError
from extproc.planning.capacity import Instance, smallest_tensor_parallel
from extproc.planning.fleet import Balance
from extproc.planning.inputs import lengths_of_means, live_input, load_catalogue, load_traces
from extproc.planning.lengths import Lengths
from extproc.planning.plan import SimulationOptions
from extproc.planning.setup import MeasuredRates, Objective, Setup, SlotRule

__all__ = ["MAX_SEEDS", "setup_of", "simulation_of", "workload_of"]

MAX_SEEDS = 100
MIN_REQUESTS = 2_000  # 20 of them are beyond the 99th percentile
DEFAULT_SECONDS = 60


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
    if not 0 < rate < inf:
        raise ConfigurationError(f"rate {rate:g}: requests per second must be positive")
    return lengths, rate


def setup_of(args: argparse.Namespace) -> Setup:
    """Return the instance, its pools' limits, the objective and the prices."""
    catalogue = load_catalogue(args.catalogue)
    for name in ("tp", "long_context", "weight_bytes", "kv_bytes", "batched_tokens", "price"):
        value = getattr(args, name)
        if value is not None and not 0 < value < inf:
            raise ConfigurationError(f"--{name.replace('_', '-')} {value:g}: must be positive")
    if args.spare < 0:
        raise ConfigurationError(f"--spare {args.spare}: must not be negative")
    model, gpu = catalogue.model(args.model), catalogue.gpu(args.gpu)
    if args.weight_bytes is not None:
        model = replace(model, weight_bytes=args.weight_bytes)
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
    return MeasuredRates(*rates)


def simulation_of(args: argparse.Namespace, rate: float) -> SimulationOptions | None:
    """Return how fleets are simulated, or None when they are not."""
    if not args.simulate:
        return None
    requests = args.requests if args.requests is not None else max(MIN_REQUESTS, round(rate * DEFAULT_SECONDS))
    if requests < MIN_REQUESTS or not 1 <= args.seeds <= MAX_SEEDS or args.jobs < 1:
        raise ConfigurationError(
            f"--requests {requests}, --seeds {args.seeds}, --jobs {args.jobs}: at least {MIN_REQUESTS} "
            f"requests, 1 to {MAX_SEEDS} seeds and 1 process are needed"
        )
    return SimulationOptions(
        requests,
        args.seeds,
        tuple(sorted(set(args.threshold))),
        args.router,
        Balance(args.balance),
        args.arrivals,
        args.jobs,
    )
