"""`dualpool check FILE`: say whether a file would work, before anything runs with it.

What kind of file it is stands before its name; without a word it is the router's configuration.
"""

import argparse
import sys
from pathlib import Path

__all__ = ["add"]

KINDS = ("config",)


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "check",
        help="say what is wrong with a configuration file: exit 0 when it can be used, 2 when it cannot",
        usage="dualpool check [config] FILE",
    )
    parser.add_argument(
        "kind", nargs="?", choices=KINDS, default="config", help="what the file is (default: config)"
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the router's YAML file")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    """Print every fault, a line each: whoever mends a file wants to see them all."""
    from extproc.config.loading import load  # noqa: PLC0415  (other commands start faster without it)
    from extproc.core.errors import ConfigurationError  # noqa: PLC0415

    try:
        load(options.file)
    except ConfigurationError as error:
        for sentence in error.sentences:
            print(ConfigurationError(sentence, source=error.source), file=sys.stderr)
        return 2
    print(f"configuration file {options.file}: can be used")
    return 0
