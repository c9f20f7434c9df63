"""`dualpool plan`: what would two pools save here, and where should the threshold be."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from extproc.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from extproc.planning.model.costs import Costs
    from extproc.planning.plan import Plan
    from extproc.planning.workload.lengths import Lengths

__all__ = ["add", "run"]

DECLARED = ("truth", "1.5x", "1024", "4096", "none")
MIN_WIDTH = 100  # of the tables; a narrower terminal wraps their lines


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "plan",
        help="what two pools would save, and at which threshold",
        description="Plans pools from a trace, from a router's metrics, or from two means. `dualpool plan paper` "
        "replays the setting of arXiv 2604.08075.",
    )
    parser.add_argument("what", nargs="?", choices=["paper"], help="replay the paper instead of planning")
    _add_workload(parser)
    _add_profile(parser)
    _add_objective(parser)
    _add_simulation(parser)
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    parser.add_argument("--report", metavar="DIR", help="write DIR/index.html, one page with plots")
    parser.set_defaults(run=run, defaults=parser.parse_args([]))


def run(args: argparse.Namespace) -> int:
    """Plan, print, and write the report; return 0."""
    if args.what == "paper":
        return _paper(args)
    from extproc.planning.model.costs import costs_of  # noqa: PLC0415
    from extproc.planning.options import check_directory, setup_of, simulation_of, workload_of  # noqa: PLC0415
    from extproc.planning.plan import make_plan  # noqa: PLC0415
    from extproc.planning.simulation.cache import ResultCache  # noqa: PLC0415  (none of the planner is needed for --help)
    from extproc.planning.simulation.progress import progress_bar  # noqa: PLC0415
    from extproc.planning.workload.declared import DeclaredRule  # noqa: PLC0415

    if not args.simulate:
        _refuse_unused(args, frozenset(vars(args)) - SIMULATION_USES, "is only used with --simulate")
    write = _report_writer() if args.report is not None else None
    if args.report is not None:
        check_directory("--report", args.report)
    setup = setup_of(args)
    lengths, rate = workload_of(args)
    with progress_bar() as progress:
        plan = make_plan(
            lengths,
            rate,
            setup,
            DeclaredRule(args.declared),
            simulation=simulation_of(args, lengths, rate),
            cache=ResultCache(_cache(args)),
            progress=progress,
        )
    _print(plan, costs_of(setup), as_json=args.json)
    if write is not None:
        print(f"report: {write(plan, lengths, costs_of(setup), Path(args.report))}", file=sys.stderr)
    return 0


def _report_writer() -> "Callable[[Plan, Lengths, Costs, Path], Path]":
    """Import the report before anything is simulated: it fails where matplotlib is missing."""
    from extproc.planning.output.report import write_report  # noqa: PLC0415

    return write_report


def _add_workload(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("workload (one of the first three)")
    group.add_argument("--trace", nargs="+", metavar="FILE", help="Azure CSV, JSON lines, or points of a CDF")
    group.add_argument(
        "--metrics", nargs="+", metavar="URL|FILE", help="one or two scrapes of a router's /metrics"
    )
    group.add_argument(
        "--mean-tokens", metavar="IN,OUT", help="mean input and output tokens, when no more is known"
    )
    group.add_argument("--rate", type=float, help="requests per second")
    group.add_argument("--scrape-interval", type=float, metavar="S", help="seconds between two scrapes")
    group.add_argument("--declared", choices=DECLARED, default="truth", help="max_tokens that clients declare")


def _add_profile(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("profile")
    group.add_argument("--model", default="llama-3-70b")
    group.add_argument("--gpu", default="a100-80g")
    group.add_argument("--catalogue", metavar="FILE", help="more profiles, in YAML")
    group.add_argument("--tp", type=int, metavar="N", help="GPUs per instance; the smallest that fits by default")
    group.add_argument("--long-context", type=int, default=65_536, metavar="TOKENS")
    group.add_argument(
        "--weight-bytes", type=float, metavar="BYTES", help="per weight; the model's own by default"
    )
    group.add_argument("--kv-bytes", type=float, default=2.0, metavar="BYTES", help="per KV element (1 for FP8)")
    group.add_argument("--slots", choices=["paged", "worst-case"], default="paged", help="how max_num_seqs is set")
    group.add_argument("--batched-tokens", type=int, metavar="N", help="max_num_batched_tokens")
    group.add_argument("--spare", type=int, default=1, help="spare instances of each pool (n+1)")
    group.add_argument("--price", type=float, metavar="USD", help="per GPU and hour; the catalogue's by default")
    group.add_argument(
        "--measured", metavar="H,S,L[,R]", help="req/s of one instance: homogeneous, short, long, right-sized"
    )


def _add_objective(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("objective")
    group.add_argument("--ttft", type=float, default=2.0, metavar="S", help="P99 time to first token")
    group.add_argument("--tpot-ms", type=float, default=80.0, metavar="MS", help="P99 time per output token")
    group.add_argument("--success", type=float, default=0.999, help="share of requests answered in full")


def _add_simulation(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("simulation")
    group.add_argument("--simulate", action="store_true", help="find the smallest fleets by simulating them")
    group.add_argument(
        "--threshold", type=int, nargs="+", default=[], metavar="TOKENS", help="thresholds to simulate"
    )
    group.add_argument("--requests", type=int, help="requests of one run (60 s of traffic by default)")
    group.add_argument("--seeds", type=int, default=3)
    group.add_argument(
        "--router",
        choices=["byteclass", "ema", "oracle"],
        default="byteclass",
        help="what estimates prompts: the router's own byte classes, the paper's mean, or the truth",
    )
    group.add_argument("--balance", choices=["least-loaded", "round-robin"], default="least-loaded")
    group.add_argument("--arrivals", choices=["poisson", "trace"], default="poisson")
    group.add_argument("--jobs", type=int, default=1, help="processes")
    group.add_argument("--cache", metavar="DIR", help="where results are kept; 'none' keeps nothing")


def _cache(args: argparse.Namespace) -> Path | None:
    from extproc.planning.options import check_directory  # noqa: PLC0415

    if args.cache == "none":
        return None
    if args.cache is not None:
        return check_directory("--cache", args.cache)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dualpool" / "plan"


def _print(plan: "Plan", costs: "Costs", *, as_json: bool) -> None:
    if as_json:
        from extproc.planning.output.export import plan_json  # noqa: PLC0415

        print(plan_json(plan, costs))
        return
    from rich.console import Console  # noqa: PLC0415

    from extproc.planning.output.tables import plan_tables, plan_texts  # noqa: PLC0415

    console = Console(highlight=False, width=max(MIN_WIDTH, Console().width))
    for renderable in (*plan_texts(plan), *plan_tables(plan, costs, full=False)):
        console.print(renderable)
        console.print()
    console.print(plan.recommendation, style="bold")


def _paper(args: argparse.Namespace) -> int:
    from extproc.planning.options import check_runs  # noqa: PLC0415
    from extproc.planning.output.export import replay_json  # noqa: PLC0415
    from extproc.planning.paper.replay import replay  # noqa: PLC0415
    from extproc.planning.simulation.cache import ResultCache  # noqa: PLC0415
    from extproc.planning.simulation.progress import progress_bar  # noqa: PLC0415
    from extproc.planning.workload.inputs import load_traces  # noqa: PLC0415

    _refuse_unused(args, PAPER_USES, "is not used by `dualpool plan paper`")
    requests = args.requests if args.requests is not None else PAPER_REQUESTS
    check_runs(requests, args.seeds, args.jobs)
    azure = load_traces(args.trace or _azure_files())
    with progress_bar() as progress:
        result = replay(
            azure, requests, args.seeds, jobs=args.jobs, cache=ResultCache(_cache(args)), progress=progress
        )
    if args.json:
        print(replay_json(result))
        return 0
    from rich.console import Console  # noqa: PLC0415

    from extproc.planning.paper.tables import replay_renderables  # noqa: PLC0415

    console = Console(highlight=False, width=max(MIN_WIDTH, Console().width))
    for renderable in replay_renderables(result):
        console.print(renderable)
        console.print()
    return 0


PAPER_REQUESTS = 100_000
SIMULATION_USES = frozenset({"threshold", "requests", "seeds", "router", "balance", "arrivals", "jobs"})
PAPER_USES = frozenset({"what", "trace", "requests", "seeds", "jobs", "cache", "json", "run", "defaults"})


def _refuse_unused(args: argparse.Namespace, used: frozenset[str], why: str) -> None:
    """Raise ConfigurationError for an option that is not at its default and would change nothing."""
    for name, value in vars(args).items():
        if name not in used and value != getattr(args.defaults, name, value):
            raise ConfigurationError(f"--{name.replace('_', '-')}: {why}")


def _azure_files() -> list[str]:
    """Return the Azure 2023 trace where DUALPOOL_DATA, or else the folder beside the repository, has it."""
    root = Path(os.environ.get("DUALPOOL_DATA") or Path(__file__).parents[3] / "shared" / "data")
    files = [root / "azure2023" / f"AzureLLMInferenceTrace_{part}.csv" for part in ("conv", "code")]
    if not all(file.exists() for file in files):
        raise ConfigurationError(
            f"the Azure 2023 trace is not in {root}: give its two files with --trace (Azure/AzurePublicDataset "
            "has them)"
        )
    return [str(file) for file in files]
