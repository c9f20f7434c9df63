"""The speed of the fleet simulator: requests of the Azure trace at 1,000 req/s, and whether the cost is linear.

python -m bench.planner_speed [--one-pool | --ema]
"""

import os
import resource
import sys
from pathlib import Path
from time import perf_counter, process_time

from extproc.planning.hardware.catalogue import built_in
from extproc.planning.hardware.instance import Instance
from extproc.planning.model.objective import Objective
from extproc.planning.model.setup import Setup
from extproc.planning.simulation.task import Design, RouterKind, SearchTask, make_workload, run_fleet
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.inputs import load_traces

DATA = Path(os.environ.get("DUALPOOL_DATA", ".")) / "azure2023"
TRACE = [str(DATA / f"AzureLLMInferenceTrace_{part}.csv") for part in ("conv", "code")]
LONG = 65_536


def main() -> None:
    """Print CPU and wall time in seconds, microseconds per request, and peak memory."""
    catalogue = built_in()
    instance = Instance(catalogue.model("llama-3-70b"), catalogue.gpu("a100-80g"), 8)
    setup = Setup("llama-3-70b", "a100-80g", instance, LONG, Objective())
    one = "--one-pool" in sys.argv
    design = Design("one pool", (LONG,)) if one else Design("two pools", (4_608, LONG))
    fleet = (215,) if one else (155, 60)
    router: RouterKind = "ema" if "--ema" in sys.argv else "byteclass"
    for requests in (25_000, 50_000, 100_000, 200_000):
        task = SearchTask(design, setup, load_traces(TRACE), DeclaredRule.TRUTH, 1000, requests, 1, router)
        workload = make_workload(task, 1)
        wall, cpu = perf_counter(), process_time()
        summary = run_fleet(task, workload, fleet)
        wall, cpu = perf_counter() - wall, process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{requests:>7,} requests, {design.name} of {fleet}: {cpu:5.1f} s CPU ({wall:.1f} s wall), "
            f"{cpu / requests * 1e6:.0f} us each, peak {peak:.0f} MiB, TTFT P99 {summary.all.ttft_p99_s:.2f} s, "
            f"misrouted {summary.misrouted:.2%}, under-counted {summary.under_counted:.2%}"
        )


if __name__ == "__main__":
    main()
