"""`dualpool health`: ask whether the router with this configuration is alive, for containers without curl."""

import argparse
import sys
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final

from extproc.core.errors import printable
from extproc.fetching import reason_of

__all__ = ["add"]

WITHIN_S: Final = 3.0
OK: Final = 200
# A router that listens on all addresses is asked at localhost.
EVERYWHERE: Final = ("", "[::]", "0.0.0.0")  # noqa: S104  (nothing is bound to it)


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "health",
        help="check whether the router on this machine is alive",
        description="Asks the router on this machine whether it is alive. Exit code 0: yes, 1: no.",
    )
    parser.add_argument("--config", type=Path, help="the configuration file that the router was started with")
    parser.add_argument("--ready", action="store_true", help="also ask whether it accepts requests")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from extproc.config.loading import load  # noqa: PLC0415  (other commands start faster without it)

    configuration = load(options.config)
    host, _, port = configuration.admin.address.rpartition(":")
    connection = HTTPConnection(
        "localhost" if host in EVERYWHERE else host.strip("[]"), int(port), timeout=WITHIN_S
    )
    try:
        connection.request("GET", "/readyz" if options.ready else "/healthz")
        response = connection.getresponse()
        text = response.read().decode("utf-8", "replace").strip()
    except (OSError, HTTPException) as error:
        said = printable(f"{configuration.admin.address}: {reason_of(error)}")
        print(f"dualpool health: {said}", file=sys.stderr)
        return 1
    finally:
        connection.close()
    print(printable(text))
    return 0 if response.status == OK else 1
