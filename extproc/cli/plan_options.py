"""The options of `dualpool plan`, and their conversion to the planner's option objects."""

import argparse
from typing import TYPE_CHECKING

from extproc.cli.plan_simulation import add_simulation_options

if TYPE_CHECKING:
    from extproc.planning.model.options import ProfileOptions
    from extproc.planning.workload.options import WorkloadOptions

__all__ = ["add_options", "profile_options", "workload_options"]

DECLARED = ("truth", "1.5x", "1024", "4096", "none")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add all options except those of the output."""
    _add_workload(parser)
    _add_profile(parser)
    _add_objective(parser)
    add_simulation_options(parser)


def _add_workload(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("workload (one of the first three)")
    group.add_argument(
        "--trace", nargs="+", metavar="FILE", help="files of requests; see docs/planner.md for the formats"
    )
    group.add_argument(
        "--metrics",
        nargs="+",
        metavar="URL|FILE",
        help="one or two scrapes of a router: its admin address, or files",
    )
    group.add_argument(
        "--metrics-model", metavar="NAME", help="plan for this model of the scrapes (default: all, as one)"
    )
    group.add_argument(
        "--mean-tokens", metavar="IN,OUT", help="mean input and output tokens, when nothing else is known"
    )
    group.add_argument("--rate", type=float, help="requests per second")
    group.add_argument("--scrape-interval", type=float, metavar="S", help="seconds between two scrapes")
    group.add_argument(
        "--prefix-cache",
        default="none",
        metavar="WHAT",
        help="'trace' (the trace's hash_ids), or the share of prompt tokens found in the cache (default: none)",
    )
    group.add_argument(
        "--declared", choices=DECLARED, default="truth", help="max_tokens that clients declare (default: truth)"
    )


def _add_profile(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("profile")
    group.add_argument("--model", default="llama-3-70b", help="a model from the catalogue (default: %(default)s)")
    group.add_argument(
        "--gpu",
        nargs="+",
        default=["a100-80g"],
        metavar="GPU",
        help="GPUs from the catalogue; with several, each pool uses the one that is cheapest for it (default: "
        "a100-80g)",
    )
    group.add_argument("--catalogue", metavar="FILE", help="a YAML file with more profiles")
    group.add_argument(
        "--weight-bytes", type=float, metavar="BYTES", help="bytes per weight (default: the model's own)"
    )
    group.add_argument(
        "--kv-bytes",
        type=float,
        default=2.0,
        metavar="BYTES",
        help="bytes per KV element, 1 for FP8 (default: %(default)g)",
    )
    group.add_argument("--spare", type=int, default=1, help="spare instances of each pool (default: %(default)s)")
    group.add_argument(
        "--price", type=float, metavar="USD", help="price per GPU and hour (default: the catalogue's)"
    )
    _add_engine(group)
    _add_parallelism(group)
    _add_times(group)


def _add_engine(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--engine",
        choices=["vllm-0.32", "vllm-0.18", "sglang-0.5.23"],
        default="vllm-0.32",
        help="the version whose scheduler and defaults are used (default: %(default)s)",
    )
    group.add_argument(
        "--long-context",
        type=int,
        default=65_536,
        metavar="TOKENS",
        help="max_model_len of the largest pool (default: %(default)s)",
    )
    group.add_argument(
        "--slots",
        choices=["paged", "worst-case"],
        default="paged",
        help="how max_num_seqs is set (default: paged)",
    )
    group.add_argument(
        "--batched-tokens",
        type=int,
        metavar="N",
        help="max_num_batched_tokens (default: searched, or the best of those whose full batch keeps the TPOT)",
    )


def _add_parallelism(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--tp",
        type=int,
        metavar="N",
        help="GPUs per instance (default: those with which one pool is cheapest; searched when simulating)",
    )
    group.add_argument(
        "--dp",
        type=int,
        metavar="N",
        help="attention replicas that share the experts, for mixture-of-experts models (default: 1; "
        "searched when simulating)",
    )


def _add_times(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--times",
        choices=["auto", "measured", "roofline"],
        default="auto",
        help="iteration times: measured kernels, or a roofline; auto takes measured ones where "
        "dualpool[measured] has them (default: auto)",
    )
    group.add_argument(
        "--measured",
        metavar="H,S,L[,R]",
        help="measured req/s of one instance: homogeneous, short, long, right-sized",
    )


def _add_objective(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("objective")
    group.add_argument(
        "--ttft", type=float, default=2.0, metavar="S", help="P99 time to first token (default: %(default)g)"
    )
    group.add_argument(
        "--tpot-ms",
        type=float,
        default=80.0,
        metavar="MS",
        help="P99 time per output token (default: %(default)g)",
    )
    group.add_argument(
        "--objective",
        metavar="TEXT",
        help="objectives by the tokens of a request: '<=8192: ttft 2s, tpot 80ms; else: ttft 30s'",
    )
    group.add_argument(
        "--success",
        type=float,
        default=0.999,
        help="share of requests that are answered completely (default: %(default)g)",
    )


def workload_options(args: argparse.Namespace) -> "WorkloadOptions":
    """Return the options that say where the workload comes from."""
    from extproc.planning.workload.options import WorkloadOptions  # noqa: PLC0415

    return WorkloadOptions(
        trace=tuple(args.trace or ()),
        metrics=tuple(args.metrics or ()),
        mean_tokens=args.mean_tokens,
        rate=args.rate,
        scrape_interval=args.scrape_interval,
        prefix_cache=args.prefix_cache,
        metrics_model=args.metrics_model,
    )


def profile_options(args: argparse.Namespace) -> "ProfileOptions":
    """Return the options that describe the model, the engine and the objective; --gpu names the GPUs."""
    from extproc.planning.model.options import ProfileOptions  # noqa: PLC0415

    return ProfileOptions(
        model=args.model,
        tp=args.tp,
        dp=args.dp,
        long_context=args.long_context,
        weight_bytes=args.weight_bytes,
        kv_bytes=args.kv_bytes,
        slots=args.slots,
        batched_tokens=args.batched_tokens,
        spare=args.spare,
        price=args.price,
        measured=args.measured,
        ttft=args.ttft,
        tpot_ms=args.tpot_ms,
        success=args.success,
        objective=args.objective,
        times=args.times,
        engine=args.engine,
    )
