"""The entry point `dualpool`. Exit code 0: success, 1: failure, 2: wrong usage or configuration, 130: Ctrl-C."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper

from extproc import __version__
from extproc.core.errors import ConfigurationError

__all__ = ["main"]

# Set before numpy is loaded. An estimator's matrices are small: a second BLAS thread would only spin, on a core
# that serves requests.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

NO_THREAD = "can't start new thread"  # Python's words; the exception has no type of its own

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
    if isinstance(sys.stdout, TextIOWrapper):  # None if it is closed
        # Names have characters that the encoding of a terminal or a file may lack; stderr does the same.
        sys.stdout.reconfigure(errors="backslashreplace")
    options = _parser(arguments).parse_args(arguments)
    try:
        code: int = options.run(options)
        # A failed write can be reported here; at the interpreter's exit it would cause a traceback.
        print(end="", flush=True)
    except ConfigurationError as error:
        print(f"dualpool {options.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader has closed the pipe, as `head` does: discard the remaining output silently.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # An error of the machine, such as a full disk; for the user's files, commands raise ConfigurationError.
        print(f"dualpool {options.command}: {error}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        if str(error) != NO_THREAD:
            raise
        limits = "the limits on processes (ulimit -u, pids.max) and on memory are too low for it"
        print(f"dualpool {options.command}: {error}: {limits}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Return a parser with only the given command, which starts faster; with all commands if none is given."""
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
