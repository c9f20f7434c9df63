"""`dualpool check FILE`: report whether a file would work, before anything runs with it.

The kind of file may precede its name; without it, FILE is the router's configuration.
"""

import argparse
import sys
from pathlib import Path

from extproc.cli import check_envoy

__all__ = ["add"]


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser, which passes its arguments on to the parser of the kind of file."""
    parser = subparsers.add_parser(
        "check",
        help="report the faults of a configuration file, the router's or the gateway's",
        description="Reports every fault of the router's configuration file, without running it. Exit code 0: "
        "none, 2: some. `dualpool check envoy` looks for known traps in a gateway's configuration.",
        usage="dualpool check [config] FILE\n       dualpool check envoy --help",
    )
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    words: list[str] = options.words
    if words[:1] == ["envoy"]:
        return check_envoy.run(words[1:])
    named = words[:1] == ["config"] and len(words) > 1
    return _check_config(_config_parser().parse_args(words[1:] if named else words).file)


def _config_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("dualpool check", usage="dualpool check [config] FILE")
    parser.add_argument("file", metavar="FILE", type=Path, help="the router's YAML file")
    return parser


def _check_config(file: Path) -> int:
    """Print every fault on its own line, so that all can be fixed at once; return the exit code."""
    from extproc.config.loading import load  # noqa: PLC0415  (other commands start faster without it)
    from extproc.core.errors import ConfigurationError  # noqa: PLC0415
    from extproc.exact.tokenizers import Tokenizers  # noqa: PLC0415

    try:
        estimator = load(file).estimator
        if estimator.exact:
            Tokenizers(estimator.exact, estimator.exact_budget_ms)
    except ConfigurationError as error:
        for sentence in error.sentences:
            print(ConfigurationError(sentence, source=f"configuration file {file}"), file=sys.stderr)
        return 2
    print(f"configuration file {file}: valid")
    return 0
