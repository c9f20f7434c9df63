"""Whether default run lengths find the steady state: instances of one pool against runs ten times as long.

python -m bench.planner_steady [NAME...]      traces come from the folder that DUALPOOL_DATA names
"""

import sys
from dataclasses import replace
from time import process_time

from bench.planner_pays import WORKLOADS
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.model.options import ProfileOptions, setup_of
from extproc.planning.simulation.options import SimulationOptions, runs_of
from extproc.planning.simulation.search import ObjectiveNotMet, smallest_fleets
from extproc.planning.simulation.task import Design, SearchTask
from extproc.planning.workload.declared import DeclaredRule

NAMES = ("azure", "r1-like", "documents-5", "mooncake")
TIMES = 10


def main() -> None:
    """Print one row for each workload."""
    print("| workload | instances (requests of a run) | of runs 10 x as long | difference | CPU s |")
    print("|---|---|---|---|---|", flush=True)
    for name in sys.argv[1:] or NAMES:
        print(_row(name), flush=True)


def _row(name: str) -> str:
    work = WORKLOADS[name]
    lengths, rate = work.lengths(), work.rate / 2
    objective = f"<=8192: ttft 2s; else: ttft {work.long_ttft_s}s"
    profile = ProfileOptions(gpu="h100-80g", tp=4, long_context=work.context, objective=objective)
    setup = setup_of(profile, built_in())
    runs = runs_of(SimulationOptions(), lengths, rate)
    task = SearchTask(
        design=Design(name, (work.context,)),
        setup=setup,
        lengths=lengths,
        rule=DeclaredRule.TRUTH,
        rate=rate,
        requests=runs.requests,
        seeds=1,
        router="oracle",
        balancing=runs.balancing,
        longest=runs.longest,
    )
    started = process_time()
    try:
        found = smallest_fleets(task)[0]
        seconds = process_time() - started
        longer = smallest_fleets(replace(task, requests=TIMES * found.requests, longest=0))[0]
    except ObjectiveNotMet as error:
        return f"| {name} | refused: {error} | | | |"
    state = f", refused: {found.not_steady}" if found.not_steady else ""
    difference = found.total / longer.total - 1
    ours = f"{found.total} ({found.requests:,}{state})"
    return f"| {name}, {rate:g} req/s | {ours} | {longer.total} | {difference:+.1%} | {seconds:.0f} |"


if __name__ == "__main__":
    main()
