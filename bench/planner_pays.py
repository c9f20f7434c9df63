"""When two pools pay: a table of workloads x objectives x balancing rules, with every design tuned.

python -m bench.planner_pays [--times roofline] [NAME...]      traces are read from the folder in DUALPOOL_DATA

Llama-3-70B on H100. LMSYS-like, r1-like and chat with documents are drawn from the distributions below; Azure and
Mooncake are the public traces. Each row answers the question of `dualpool plan --simulate` with the options that
the row names.
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from extproc.planning.design.answer import Plan
from extproc.planning.design.plan import PlanOptions, make_plan
from extproc.planning.design.pool import Tuning
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.model.costs import Costs, costs_of
from extproc.planning.model.options import ProfileOptions, setup_of
from extproc.planning.simulation.balancing import Balance, Balancing
from extproc.planning.simulation.cache import ResultCache
from extproc.planning.simulation.options import RunOptions
from extproc.planning.simulation.runner import FleetEstimate
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.inputs import load_traces
from extproc.planning.workload.lengths import Lengths, from_means

LONGER = 4  # times the first runs' requests; less than `dualpool plan` allows, because there are so many rows
OBJECTIVES = {
    "one for all": "else: ttft {long}s, tpot 80ms",
    "by length": "<=8192: ttft 2s, tpot 80ms; else: ttft {long}s, tpot 80ms",
}
BALANCES = (Balance.LEAST_REQUEST, Balance.TOKENS)


@dataclass(frozen=True)
class Workload:
    """A workload: requests per second, the largest context, the TTFT objective of long requests, the lengths, and
    the requests of the first runs.
    """

    rate: float
    context: int
    long_ttft_s: int
    lengths: Callable[[], Lengths]
    requests: int = 4_000


def azure() -> Lengths:
    """Return both Azure 2023 traces together."""
    folder = Path(os.environ["DUALPOOL_DATA"]) / "azure2023"
    return load_traces([str(folder / f"AzureLLMInferenceTrace_{part}.csv") for part in ("conv", "code")])


def mooncake() -> Lengths:
    """Return Mooncake's conversations that fit the context."""
    path = Path(os.environ["DUALPOOL_DATA"]) / "mooncake" / "conversation_trace.jsonl"
    lengths = load_traces([str(path)])
    return lengths.subset(lengths.total <= 131_072)


def long_answers() -> Lengths:
    """Return short questions with answers as long as reasoning models give, 1,500 tokens on average."""
    rng = np.random.default_rng(0)
    output = np.minimum(rng.lognormal(7.0, 0.8, 20_000), 16_000).astype(np.int64) + 1
    return Lengths(rng.geometric(1 / 300, 20_000), output, "r1-like")


def documents(share: float) -> Lengths:
    """Return LMSYS-like chat in which a share of the requests carries a document of 10,000 to 60,000 tokens."""
    rng = np.random.default_rng(0)
    prompt = rng.geometric(1 / 400, 20_000)
    prompt = np.where(rng.random(20_000) < share, rng.integers(10_000, 60_000, 20_000), prompt)
    return Lengths(prompt, rng.geometric(1 / 215, 20_000), f"chat + {share:.0%} documents")


WORKLOADS = {
    "azure": Workload(100, 16_384, 2, azure),
    "lmsys-like": Workload(
        200, 16_384, 2, lambda: from_means(69.5, 214.5, 50_000, np.random.default_rng(0)), 48_000
    ),
    "r1-like": Workload(20, 32_768, 2, long_answers, 3_000),
    "documents-1": Workload(60, 65_536, 30, lambda: documents(0.01)),
    "documents-5": Workload(60, 65_536, 30, lambda: documents(0.05)),
    "mooncake": Workload(10, 131_072, 30, mooncake),
}


def main() -> None:
    """Print the table, each row as soon as it is ready."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(WORKLOADS))
    parser.add_argument("--times", default="auto")
    parser.add_argument("--objective", nargs="+", choices=list(OBJECTIVES), default=list(OBJECTIVES))
    args = parser.parse_args()
    columns = ("workload", "objective", "balancing", "vLLM's defaults", "one pool, tuned", "two pools, tuned")
    print(f"| {' | '.join(columns)} | two vs one |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in args.names:
        lengths = WORKLOADS[name].lengths()
        for objective in args.objective:
            text = OBJECTIVES[objective]
            for balance in BALANCES:
                started = perf_counter()
                row = _row(WORKLOADS[name], lengths, text, balance, args.times)
                print(f"| {name} | {objective} {row}", flush=True)
                print(f"  {name}, {objective}, {balance}: {perf_counter() - started:.0f} s", file=sys.stderr)


def _row(work: Workload, lengths: Lengths, text: str, balance: Balance, times: str) -> str:
    profile = ProfileOptions(
        gpu="h100-80g",
        long_context=work.context,
        spare=0,
        objective=text.format(long=work.long_ttft_s),
        times=times,
    )
    setup = setup_of(profile, built_in())
    balancing = Balancing(balance)
    runs = RunOptions(work.requests, LONGER * work.requests, 1, (), "byteclass", balancing, "poisson", 1)
    plan = make_plan(
        lengths,
        work.rate,
        setup,
        DeclaredRule.TRUTH,
        options=PlanOptions(runs, Tuning(), 1.25),
        cache=ResultCache(None),
        progress=lambda *_: None,
    )
    costs = costs_of(setup)
    usual, one, two = (_cheapest(plan, costs, kind) for kind in ("usual", "one", "two"))
    saved = "-" if one is None or two is None else f"{100 * (costs.of(two).gpus / costs.of(one).gpus - 1):+.0f} %"
    cells = [_cell(each, costs) for each in (usual, one, two)]
    return f"| {balancing} | {' | '.join(cells)} | {saved} |"


def _cheapest(plan: Plan, costs: Costs, kind: str) -> FleetEstimate | None:
    candidates = {
        "usual": [f for f in plan.fleets if f.design.name.endswith("defaults")],
        "one": [f for f in plan.fleets if len(f.design.contexts) == 1],
        "two": [f for f in plan.fleets if len(f.design.contexts) > 1],
    }[kind]
    return min(candidates, key=lambda fleet: costs.of(fleet).gpus, default=None)


def _cell(fleet: FleetEstimate | None, costs: Costs) -> str:
    if fleet is None:
        return "no fleet meets it"
    cost, ttft_s = costs.of(fleet), fleet.typical.summary.shortest.latency.ttft_p99_s
    at = f" at {fleet.design.contexts[0]:,}" if len(fleet.design.contexts) > 1 else ""
    steady = "" if not fleet.not_steady else ", not steady"
    return f"{cost.gpus} ({cost.shape}{at}; short {ttft_s:.2f} s{steady})"


if __name__ == "__main__":
    main()
