"""Whether default run lengths find the steady state: fleet sizes compared with runs ten times as long.

python -m bench.planner_steady [NAME...]      traces are read from the folder in DUALPOOL_DATA
"""

import sys
from dataclasses import dataclass, replace
from time import process_time

from bench.planner_pays import WORKLOADS
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.model.options import ProfileOptions, setup_of
from extproc.planning.simulation.options import SimulationOptions, runs_of
from extproc.planning.simulation.search import ObjectiveNotMet, smallest_fleets
from extproc.planning.simulation.task import Design, SearchTask
from extproc.planning.workload.declared import DeclaredRule

TIMES = 10


@dataclass(frozen=True)
class Case:
    """A workload at half its rate in `planner_pays`, thresholds, and the GPUs of an instance of each pool."""

    workload: str
    thresholds: tuple[int, ...] = ()
    gpus: tuple[int, ...] = (4,)


CASES = {
    "azure": Case("azure"),
    "r1-like": Case("r1-like"),
    "documents-5": Case("documents-5"),
    "documents-5-two": Case("documents-5", (1_792,), (4, 8)),  # the two pools that the plan recommends
    "mooncake": Case("mooncake"),
}


def main() -> None:
    """Print one row per case."""
    print("| workload | instances (requests per run) | with runs 10 x as long | difference | CPU s |")
    print("|---|---|---|---|---|", flush=True)
    for name in sys.argv[1:] or CASES:
        print(_row(name, CASES[name]), flush=True)


def _row(name: str, case: Case) -> str:
    work = WORKLOADS[case.workload]
    lengths, rate = work.lengths(), work.rate / 2
    objective = f"<=8192: ttft 2s; else: ttft {work.long_ttft_s}s"
    setups = tuple(
        setup_of(
            ProfileOptions(gpu="h100-80g", tp=gpus, long_context=work.context, objective=objective), built_in()
        )
        for gpus in case.gpus
    )
    runs = runs_of(SimulationOptions(), lengths, rate)
    task = SearchTask(
        design=Design(name, (*case.thresholds, work.context), setups),
        setup=setups[-1],
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
        default = smallest_fleets(task)[0]
        seconds = process_time() - started
        longer = smallest_fleets(replace(task, requests=TIMES * default.requests, longest=0))[0]
    except ObjectiveNotMet as error:
        return f"| {name} | refused: {error} | | | |"
    state = f", refused: {default.not_steady}" if default.not_steady else ""
    difference = default.total / longer.total - 1
    size = f"{' + '.join(map(str, default.instances))} ({default.requests:,}{state})"
    longer_size = " + ".join(map(str, longer.instances))
    return f"| {name}, {rate:g} req/s | {size} | {longer_size} | {difference:+.1%} | {seconds:.0f} |"


if __name__ == "__main__":
    main()
