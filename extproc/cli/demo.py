"""`dualpool demo`: Envoy, the router and two emulated pools on this machine, with traffic."""

import argparse

from extproc.core.errors import ConfigurationError

__all__ = ["add"]


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "demo",
        help="send real traffic through a real Envoy to two emulated pools",
        description="Starts Envoy, the router and two emulated pools on free ports, sends varied requests with "
        "the openai client, and shows where each went and what was learned. Runs until Ctrl-C.",
    )
    parser.add_argument(
        "--once", action="store_true", help="exit after the summary; exit code 0 if nothing failed, 1 otherwise"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON, and nothing else")
    parser.add_argument("--requests", type=int, default=300, metavar="N", help="number of requests (default: 300)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    import signal  # noqa: PLC0415  (other commands start faster without it)

    try:
        from extproc.demo.show import Options, run  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{error.name} is not installed; install dualpool[demo]") from error

    # SIGTERM does the same as Ctrl-C, so that both end all processes that were started.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    return run(Options(once=options.once, as_json=options.json, requests=options.requests))
