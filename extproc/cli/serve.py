"""`dualpool serve`: run the router."""

import argparse
from pathlib import Path

__all__ = ["add"]


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser("serve", help="run the ext_proc server")
    parser.add_argument("--config", type=Path, help="YAML file; all settings have defaults")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from extproc.config.loading import load, parse  # noqa: PLC0415  (other commands start faster without these)
    from extproc.server.app import serve  # noqa: PLC0415
    from extproc.telemetry.log import configure_logging  # noqa: PLC0415

    configuration = load(options.config) if options.config else parse("")
    configure_logging(configuration.log_level)
    serve(configuration, options.config)
    return 0
