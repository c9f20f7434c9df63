"""`dualpool plan`: compute what two pools would save for a workload, and the best threshold between them."""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from extproc.cli.folders import cache_folder
from extproc.cli.plan_options import add_options, profile_options, workload_options
from extproc.cli.plan_simulation import head_room_of, simulation_options, start_minutes_of, tuning_of
from extproc.cli.plan_unused import RULES, paper_rules, refuse_unused
from extproc.cli.progress import progress_bar
from extproc.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from extproc.planning.design.answer import Plan
    from extproc.planning.model.costs import Costs
    from extproc.planning.workload.lengths import Lengths

__all__ = ["add", "run"]

MIN_WIDTH = 100  # columns of the tables; a narrower terminal wraps their lines


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "plan",
        help="compute what two pools would save, and at which threshold",
        description="Plans pools from a trace, from a router's metrics, or from two means. `dualpool plan paper` "
        "replays the setting of arXiv 2604.08075.",
    )
    parser.add_argument("what", nargs="?", choices=["paper"], help="replay the paper instead of planning")
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    parser.add_argument("--report", metavar="DIR", help="write DIR/index.html, one page with plots")
    parser.add_argument("--apply", metavar="DIR", help="write vLLM's flags, dualpool.yaml, Envoy and Helm values")
    parser.set_defaults(run=run, defaults=parser.parse_args([]))


def run(args: argparse.Namespace) -> int:
    """Make the plan, print it, and write the files that were asked for; return 0."""
    if args.what == "paper":
        return _paper(args)
    # Imported here because --help does not need the planner.
    from extproc.planning.design.plan import PlanOptions, make_plan  # noqa: PLC0415
    from extproc.planning.model.costs import costs_of  # noqa: PLC0415
    from extproc.planning.model.options import first_setup  # noqa: PLC0415
    from extproc.planning.model.reach import reaching  # noqa: PLC0415
    from extproc.planning.simulation.cache import ResultCache  # noqa: PLC0415
    from extproc.planning.simulation.options import runs_of  # noqa: PLC0415
    from extproc.planning.workload.declared import DeclaredRule  # noqa: PLC0415
    from extproc.planning.workload.inputs import load_catalogue, load_day  # noqa: PLC0415
    from extproc.planning.workload.options import workload_of  # noqa: PLC0415

    refuse_unused(args, RULES)
    write = _report_writer() if args.report is not None else None
    if args.report is not None:
        check_directory("--report", args.report)
    if args.apply is not None:
        check_directory("--apply", args.apply)
    catalogue = load_catalogue(args.catalogue)
    tuning, head_room, start_minutes = tuning_of(args, catalogue), head_room_of(args), start_minutes_of(args)
    setup = first_setup(profile_options(args), args.gpu, catalogue)
    lengths, rate = workload_of(workload_options(args))
    day = load_day(args.day_curve, lengths, as_arrived=args.arrivals == "trace")
    asked = simulation_options(args)
    # Fleets are simulated with iteration times, whatever rates the cost model is given.
    timed = setup if asked is None else replace(setup, measured=None)
    setup = replace(reaching(lengths, rate, timed, tuning.gpus, sizes=args.tp is None), measured=setup.measured)
    runs = None if asked is None else runs_of(asked, lengths, rate)
    with progress_bar() as progress:
        plan = make_plan(
            lengths,
            rate,
            setup,
            DeclaredRule(args.declared),
            options=PlanOptions(runs, tuning, head_room, args.pools, day, start_minutes),
            cache=ResultCache(_cache(args)),
            progress=progress,
        )
    _print(plan, costs_of(setup), as_json=args.json)
    if args.apply is not None and runs is not None:
        from extproc.planning.output.apply import write_files  # noqa: PLC0415

        paths = write_files(plan, setup, costs_of(setup), runs, Path(args.apply))
        print(f"files: {' '.join(map(str, paths))}", file=sys.stderr)
    if write is not None:
        print(f"report: {write(plan, lengths, costs_of(setup), Path(args.report))}", file=sys.stderr)
    return 0


def check_directory(option: str, path: str) -> Path:
    """Return the path of a directory that exists or could be created.

    Raises ConfigurationError if a file is in its way: before the simulation rather than after it.
    """
    directory = Path(path)
    there = next((part for part in (directory, *directory.absolute().parents) if part.exists()), None)
    if there is not None and not there.is_dir():
        raise ConfigurationError(f"{option} {path}: {there} is a file; a directory is needed")
    return directory


def _report_writer() -> "Callable[[Plan, Lengths, Costs, Path], Path]":
    """Import the report before anything is simulated: the import fails if matplotlib is missing."""
    from extproc.planning.output.report import write_report  # noqa: PLC0415

    return write_report


def _cache(args: argparse.Namespace) -> Path | None:
    if args.cache == "none":
        return None
    if args.cache is not None:
        return check_directory("--cache", args.cache)
    return cache_folder() / "plan"


def _print(plan: "Plan", costs: "Costs", *, as_json: bool) -> None:
    if as_json:
        from extproc.planning.output.export import plan_json  # noqa: PLC0415

        print(plan_json(plan, costs))
        return
    from rich.console import Console  # noqa: PLC0415

    from extproc.planning.output.tables import plan_tables, plan_texts  # noqa: PLC0415

    console = Console(highlight=False, markup=False, width=max(MIN_WIDTH, Console().width))
    for renderable in (*plan_texts(plan), *plan_tables(plan, costs, full=False)):
        console.print(renderable)
        console.print()
    console.print(plan.recommendation, style="bold")


def _paper(args: argparse.Namespace) -> int:
    from extproc.planning.output.export import replay_json  # noqa: PLC0415
    from extproc.planning.paper.replay import replay  # noqa: PLC0415
    from extproc.planning.simulation.cache import ResultCache  # noqa: PLC0415
    from extproc.planning.simulation.options import check_runs  # noqa: PLC0415
    from extproc.planning.workload.inputs import load_traces  # noqa: PLC0415

    refuse_unused(args, paper_rules(args))
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

    console = Console(highlight=False, markup=False, width=max(MIN_WIDTH, Console().width))
    for renderable in replay_renderables(result):
        console.print(renderable)
        console.print()
    return 0


PAPER_REQUESTS = 100_000


def _azure_files() -> list[str]:
    """Return the files of the Azure 2023 trace in the folder that DUALPOOL_DATA names."""
    root = os.environ.get("DUALPOOL_DATA")
    files = [Path(root or "") / "azure2023" / f"AzureLLMInferenceTrace_{part}.csv" for part in ("conv", "code")]
    if root is None or not all(file.exists() for file in files):
        raise ConfigurationError(
            "dualpool plan paper needs the Azure 2023 trace: give its two files with --trace "
            "(Azure/AzurePublicDataset has them), or the folder that holds azure2023/ in DUALPOOL_DATA"
        )
    return [str(file) for file in files]
