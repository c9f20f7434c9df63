"""`dualpool`: entry point, and how errors end it: exit 0 well, 1 failed, 2 wrong usage or configuration."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from extproc import __version__
from extproc.core.errors import ConfigurationError

__all__ = ["main"]

# Before numpy is loaded. The matrices of an estimator are small: a second thread would spin for them, and that on
# a core that serves requests.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

COMMANDS = (
    "check",
    "demo",
    "emulate",
    "estimate",
    "evaluate",
    "health",
    "plan",
    "render",
    "serve",
    "state",
    "top",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser(arguments).parse_args(arguments)
    try:
        code: int = options.run(options)
        # Here it can be told that what was said did not get through; at the interpreter's end it is a traceback.
        print(end="", flush=True)
    except ConfigurationError as error:
        print(f"dualpool {options.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read the output has seen enough, as `head` has. The rest goes nowhere, and without complaint.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # The machine's fault, as a full disk is. Where a file is the operator's, commands name the setting.
        print(f"dualpool {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of the command that is given, which starts sooner alone; of all where none is."""
    parser = argparse.ArgumentParser(
        prog="dualpool", description="Routes LLM requests to a short- or a long-context pool by token budget."
    )
    parser.add_argument("--version", action="version", version=f"dualpool {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in arguments[:1] if arguments and arguments[0] in COMMANDS else COMMANDS:
        import_module(f"extproc.cli.{command}").add(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
