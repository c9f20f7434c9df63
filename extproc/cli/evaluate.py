"""`dualpool evaluate`: compare estimators offline, on real text with real tokenizers."""

import argparse
import os
import sys
from pathlib import Path

__all__ = ["add"]

COMMAND = "dualpool evaluate --report bench/estimator.md --plot bench/estimator.png"


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    data = Path(os.environ.get("DUALPOOL_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dualpool"
    trace = data / "azure2023" / "AzureLLMInferenceTrace_conv.csv"
    parser = subparsers.add_parser("evaluate", help="compare estimators offline on real text and tokenizers")
    parser.add_argument("--texts", type=Path, default=data / "udhr", help="folder of .txt, one kind of text each")
    parser.add_argument("--lengths", type=Path, default=trace, help="CSV with ContextTokens, GeneratedTokens")
    parser.add_argument("--tokenizers", default="qwen,cl100k,deepseek", help="names, separated by commas")
    parser.add_argument("--cache", type=Path, default=cache, help="folder for counts of tokens")
    parser.add_argument("--report", type=Path, help="write the tables to this Markdown file too")
    parser.add_argument("--plot", type=Path, help="write the convergence plot to this PNG")
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the requests, one seed: to see that it runs"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    # Other commands start faster without these imports.
    from extproc.evaluation.plot import plot  # noqa: PLC0415
    from extproc.evaluation.report import report  # noqa: PLC0415
    from extproc.evaluation.requests import read_lengths  # noqa: PLC0415
    from extproc.evaluation.scenarios import Material, Plan, compare  # noqa: PLC0415
    from extproc.evaluation.texts import all_texts  # noqa: PLC0415
    from extproc.evaluation.timing import time_estimator  # noqa: PLC0415
    from extproc.evaluation.tokenizers import tokenizer  # noqa: PLC0415

    def say(progress: str) -> None:
        print(progress, file=sys.stderr, flush=True)

    plan = Plan(fixed_requests=200, traffic_requests=300, warm_up=100, seeds=(1,)) if options.quick else Plan()
    texts = all_texts(options.texts)
    material = Material(texts, read_lengths(options.lengths))
    tokenizers = [tokenizer(name, options.cache) for name in options.tokenizers.split(",")]
    comparisons = [
        compare(material, one, [other for other in tokenizers if other is not one], plan, say)
        for one in tokenizers
    ]
    result = report(comparisons, time_estimator(texts["python"]), plan, COMMAND)
    print(result)
    if options.report:
        options.report.write_text(result, encoding="utf-8")
    if options.plot:
        plot(comparisons, options.plot)
    return 0
