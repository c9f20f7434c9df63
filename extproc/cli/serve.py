"""`dualpool serve`: run the router."""

import argparse
from pathlib import Path

__all__ = ["add"]

MAX_WORKERS = 256


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser("serve", help="run the ext_proc server")
    parser.add_argument("--config", type=Path, help="YAML file; all settings have defaults")
    parser.add_argument(
        "--workers", type=_workers, default=1, metavar="N",
        help="processes, each an endpoint of its own: on a port of its own, from that of listen.address upwards, "
        "or on a Unix socket of its own (default: 1)",
    )  # fmt: skip
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from extproc.config.loading import load, parse  # noqa: PLC0415  (other commands start faster without these)
    from extproc.telemetry.log import configure_logging  # noqa: PLC0415

    configuration = load(options.config) if options.config else parse("")
    configure_logging(configuration.log_level)
    if options.workers > 1:
        from extproc.workers.supervisor import serve_workers  # noqa: PLC0415

        serve_workers(configuration, options.config, options.workers)
    else:
        from extproc.server.app import serve  # noqa: PLC0415  (gRPC: not in a supervisor)

        serve(configuration, options.config)
    return 0


def _workers(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= MAX_WORKERS):
        raise argparse.ArgumentTypeError(f"{text!r} given; allowed: a whole number from 1 to {MAX_WORKERS}")
    return int(text)
