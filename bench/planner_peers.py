"""Recommendations of aiconfigurator for one pool, next to ours, in four cases.

python -m bench.planner_peers [--aiconfigurator PATH] [NAME...]

PATH is the program of the package `aiconfigurator` (Apache-2.0), which needs an environment of its own; without it
only our columns are filled. aiconfigurator assumes that all requests are alike, and models neither random arrivals
nor balancing. So our recommendation is shown for three assumptions: all requests alike and balanced by prompt
tokens, the same with Envoy's LEAST_REQUEST, and spread lengths (geometric, with the same means) with
LEAST_REQUEST.
"""

import argparse
import re
import subprocess
from dataclasses import dataclass
from time import process_time

import numpy as np

from extproc.planning.design.pool import PoolTask, Tuning, best_pool
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.model.options import ProfileOptions, setup_of
from extproc.planning.simulation.balancing import Balance, Balancing
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.lengths import Lengths, from_means

CONTEXT = 8_192
TTFT_S, TPOT_MS = 2.0, 80.0
BEST_ROW = re.compile(r"\nagg Top Configurations.*?\n\|\s+1\s+\|(?P<row>[^\n]*)", re.DOTALL)


@dataclass(frozen=True)
class Case:
    """A model and a GPU, aiconfigurator's names for them, requests per second, and mean tokens per request."""

    model: str
    gpu: str
    path: str
    system: str
    rate: float
    prompt: int
    output: int


CASES = {
    "azure": Case("llama-3-70b", "h100-80g", "meta-llama/Meta-Llama-3.1-70B", "h100_sxm", 100, 1434, 154),
    "r1-like": Case("llama-3-70b", "h100-80g", "meta-llama/Meta-Llama-3.1-70B", "h100_sxm", 20, 300, 1500),
    "qwen3-235b": Case("qwen3-235b-a22b", "h200", "Qwen/Qwen3-235B-A22B", "h200_sxm", 20, 1434, 154),
    "deepseek-v3": Case("deepseek-v3", "h200", "deepseek-ai/DeepSeek-V3", "h200_sxm", 20, 1434, 154),
}


def main() -> None:
    """Print one row per case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(CASES))
    parser.add_argument("--aiconfigurator", metavar="PATH")
    args = parser.parse_args()
    tokens, random = Balancing(Balance.TOKENS), Balancing(Balance.LEAST_REQUEST)
    columns = ("case", "aiconfigurator", "ours: alike, by tokens", "alike, LEAST_REQUEST", "spread, LEAST_REQUEST")
    print(f"| {' | '.join(columns)} |")
    print("|---|---|---|---|---|", flush=True)
    for name in args.names:
        case = CASES[name]
        alike = Lengths(np.array([case.prompt]), np.array([case.output]), "alike")
        spread = from_means(case.prompt, case.output, 20_000, np.random.default_rng(0))
        spread = spread.subset(spread.total <= CONTEXT)
        theirs = "-" if args.aiconfigurator is None else _theirs(args.aiconfigurator, case)
        questions = ((alike, tokens), (alike, random), (spread, random))
        ours = [_ours(case, lengths, balancing) for lengths, balancing in questions]
        print(
            f"| {name}, {case.rate:g} req/s of {case.prompt} + {case.output} | {theirs} | {' | '.join(ours)} |",
            flush=True,
        )


def _ours(case: Case, lengths: Lengths, balancing: Balancing) -> str:
    started = process_time()
    options = ProfileOptions(
        model=case.model, gpu=case.gpu, long_context=CONTEXT, spare=0, ttft=TTFT_S, tpot_ms=TPOT_MS
    )
    setup = setup_of(options, built_in())
    rule = DeclaredRule.TRUTH
    task = PoolTask(lengths, case.rate, CONTEXT, setup, setup.objective, rule, balancing, Tuning())
    best = best_pool(task)
    if best is None:
        return "no fleet meets it"
    shape = best.setup.instance
    ranks = "" if shape.data_parallel == 1 else f", DP {shape.data_parallel}"
    seconds = process_time() - started
    return f"{best.gpus} ({best.instances} x {shape.gpus}: TP {shape.tensor_parallel}{ranks}; {seconds:.0f} CPU s)"


def _theirs(program: str, case: Case) -> str:
    command = [
        program,
        "cli",
        "default",
        "--no-color",
        "--backend",
        "vllm",
        "--serving-mode",
        "agg",
        "--top-n",
        "1",
    ]
    command += ["--model-path", case.path, "--system", case.system, "--target-request-rate", str(case.rate)]
    command += ["--isl", str(case.prompt), "--osl", str(case.output), "--ttft", str(1e3 * TTFT_S)]
    command += ["--tpot", str(TPOT_MS)]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    match = BEST_ROW.search(output)
    if match is None:
        return "no result"
    cells = [cell.strip() for cell in match["row"].split("|")]
    gpus, parallel = cells[7], cells[11]
    return f"{gpus}, {parallel}"


if __name__ == "__main__":
    main()
