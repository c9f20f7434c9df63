"""`python -m bench`: measure, print, and write bench/results.md.

The things compared run in turn within each round (A B A B), and ratios are computed within a round, so that other
load on the machine affects both sides. Figures are medians over the rounds, with the smallest and largest value.
"""

import argparse
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from bench.load import need_h2load
from bench.measuring import Measurement, Plan, Table
from bench.report import as_markdown, document
from bench.stack import Stack
from extproc.core.errors import DualpoolError

RESULTS = Path(__file__).parent / "results.md"
MEASUREMENTS = (
    "bars",
    "direct",
    "through_envoy",
    "access_log",
    "inside",
    "instructions",
    "body_sizes",
    "sse",
    "latency",
    "overload",
    "memory",
    "workers",
    "bodies",
    "worst_bodies",
    "faults",
    "spill",
    "state",
    "vanish",
    "viewers",
)
WITHOUT_H2LOAD = {"bodies", "instructions", "worst_bodies", "faults", "spill", "state", "vanish", "viewers"}


def main() -> int:
    """Run the requested measurements; return the exit code."""
    options = _parser().parse_args()
    plan = Plan(options.rounds, options.requests)
    names = options.only or MEASUREMENTS
    sections: dict[str, list[Table]] = {}
    try:
        if not WITHOUT_H2LOAD.issuperset(names):
            need_h2load()
        for name in names:
            sections[name] = _measure(name, plan)
            for table in sections[name]:
                print(as_markdown(table), flush=True)
    except DualpoolError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if options.only is None:
        RESULTS.write_text(document(sections, plan))
        print(f"written to {RESULTS}")
    return 0


def _measure(name: str, plan: Plan) -> list[Table]:
    measurement: Measurement = import_module(f"bench.{name}")
    with tempfile.TemporaryDirectory(prefix="dualpool-bench-") as folder, Stack(Path(folder)) as stack:
        return measurement.measure(stack, plan)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="A full run writes bench/results.md.")
    parser.add_argument(
        "--only", action="append", choices=MEASUREMENTS, metavar="NAME",
        help=f"run only this measurement and do not write results; repeatable ({', '.join(MEASUREMENTS)})",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--requests", type=int, default=2000, help="requests per run; memory uses 10 and 100 times as many"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
