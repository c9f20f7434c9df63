"""`python -m bench.mutation`: try the mutants of core, print and write the results."""

import argparse
import os
import sys
import tempfile
import time
from fnmatch import fnmatch
from pathlib import Path

from bench.mutation.known import unexplained, unneeded
from bench.mutation.mutants import mutants, sampled
from bench.mutation.report import RESULTS, Run, as_markdown
from bench.mutation.trials import ROOT, Trials

CORE = ROOT / "extproc" / "core"
# Every mutant of these is tried: the rules by which requests are routed, held and learned from.
WHOLE = tuple(
    f"extproc/core/{name}.py"
    for name in (
        "placing/policy", "placing/budget", "placing/pool", "estimator/bound", "router/learning_budget",
        "exchange/machine", "exchange/held", "exchange/kept", "exchange/modes", "exchange/replies",
        "exchange/transitions", "router/learner", "router/placer", "placing/early",
    )
)  # fmt: skip

# Measured figures written by a script, not rules: errors in them show in the accuracy (bench/estimator.md).
FIGURES = ("extproc/core/estimator/vocabularies.py",)


def main() -> int:
    """Run; return 1 if a mutant survived for which known.toml has no reason."""
    options = _options()
    start_s = time.monotonic()
    until_s = start_s + 60 * options.minutes
    files = [path for path in sorted(CORE.rglob("*.py")) if path.relative_to(ROOT).as_posix() not in FIGURES]
    everything = mutants(ROOT, files)
    if options.only:
        chosen = [mutant for mutant in everything if any(fnmatch(mutant.module, name) for name in options.only)]
    else:
        chosen = sampled(everything, WHOLE, options.sample, options.seed)
    with tempfile.TemporaryDirectory(prefix="dualpool-mutants-") as folder:
        results = Trials(Path(folder), options.workers).run(chosen, until_s)
    minutes, used = (time.monotonic() - start_s) / 60, os.times()
    cpu_minutes = (used.user + used.system + used.children_user + used.children_system) / 60
    text = as_markdown(
        Run(results, len(everything), len(chosen), options.seed, options.workers, minutes, cpu_minutes)
    )
    print(text)
    if not options.only:
        RESULTS.write_text(text)
        for reason in unneeded(results):
            print(f"known.toml: a mutant with a reason was killed: {reason}", file=sys.stderr)
    return 1 if unexplained(results) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.mutation", description="Writes bench/mutants.md.")
    parser.add_argument(
        "--only", action="append", metavar="FILES", help="try all mutants of these files; do not write the report"
    )
    parser.add_argument(
        "--sample", type=int, default=50, help="size of the sample per package, in addition to a sixteenth of it"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--minutes", type=float, default=29.0, help="start no mutant after this time")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
