"""The effect of balancing on fleet size, and of long prefills on short requests: two tables of bench/planner.md.

python -m bench.planner_fleets [balancing | lengths]      traces are read from the folder in DUALPOOL_DATA

balancing: one pool for Azure 2023 at 100 req/s, Llama-3-70B on 4 x A100, sized for each balancing rule.
lengths: Mooncake's conversations at 20 req/s, Llama-3-70B on 8 x H100, fleets of fixed sizes.
"""

import sys
from dataclasses import replace

from bench.planner_pays import azure, mooncake
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.model.options import ProfileOptions, setup_of
from extproc.planning.model.setup import Setup
from extproc.planning.simulation.balancing import Balance, Balancing
from extproc.planning.simulation.search import smallest_fleets
from extproc.planning.simulation.task import Design, SearchTask, make_workload, run_fleet
from extproc.planning.workload.declared import DeclaredRule

SHORT = 8_192
LONG = 131_072
REQUESTS = 8_000


def main() -> None:
    """Print the tables named on the command line, both by default."""
    asked = sys.argv[1:] or ["balancing", "lengths"]
    if "balancing" in asked:
        balancing()
    if "lengths" in asked:
        by_length()


def balancing() -> None:
    """Print the smallest fleet for each rule, and whether it is in steady state."""
    setup = _setup("a100-80g", 4, 16_384, "else: ttft 2s, tpot 80ms")
    lengths = azure()
    print("| balancing | instances | requests per run | steady |")
    print("|---|---|---|---|", flush=True)
    for rule in Balance:
        design = Design("one pool", (16_384,))
        task = SearchTask(
            design, setup, lengths, DeclaredRule.TRUTH, 100, 6_000, 1, "oracle", Balancing(rule), longest=96_000
        )
        fleet = smallest_fleets(task)[0]
        print(
            f"| {task.balancing} | {fleet.total} | {fleet.requests:,} | {fleet.not_steady or 'yes'} |", flush=True
        )


def by_length() -> None:
    """Print P99 TTFT by length, with a full scan for the fewest requests and with two random choices."""
    setup = _setup("h100-80g", 8, LONG, f"<={SHORT}: ttft 2s; else: ttft 30s")
    gated = replace(setup, long_prefill_tokens=256)
    lengths = mooncake()
    fleets = [
        ("one pool of 17", Design("one", (LONG,), (setup,)), (17,)),
        ("one pool of 17, --long-prefill-token-threshold 256", Design("one", (LONG,), (gated,)), (17,)),
        (f"two pools at {SHORT:,}: 3 + 13", Design("two", (SHORT, LONG), (setup, setup)), (3, 13)),
    ]
    print(f"| fleet | <= {SHORT:,} tokens, s | longer, s |")
    print("|---|---|---|", flush=True)
    for name, design, sizes in fleets:
        cells = []
        for rule in (Balance.FULL_SCAN, Balance.LEAST_REQUEST):
            task = SearchTask(
                design, setup, lengths, DeclaredRule.TRUTH, 20, REQUESTS, 1, "oracle", Balancing(rule)
            )
            summary = run_fleet(task, make_workload(task, 1), sizes)
            cells.append([figures.latency.ttft_p99_s for figures in summary.judged])
        columns = [" / ".join(f"{times[place]:.2f}" for times in cells) for place in range(2)]
        print(f"| {name} | {' | '.join(columns)} |", flush=True)


def _setup(gpu: str, gpus: int, context: int, objective: str) -> Setup:
    options = ProfileOptions(gpu=gpu, tp=gpus, long_context=context, objective=objective, spare=0)
    return setup_of(options, built_in())


if __name__ == "__main__":
    main()
