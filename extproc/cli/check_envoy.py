"""`dualpool check envoy`: look for traps in a gateway's configuration.

Exit code 0: none, 1: some, 2: not readable.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from extproc.cli.token import add_token, bearer_of
from extproc.cli.workers import number_of_workers
from extproc.fetching import reason_of
from extproc.files import read_file, read_from

if TYPE_CHECKING:
    from extproc.gateways.router import Router

__all__ = ["run"]


def run(words: Sequence[str]) -> int:
    """Check what the arguments name; return the exit code. Raises ConfigurationError for what cannot be read."""
    return _run(_parser().parse_args(words))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "dualpool check envoy",
        description="Reads Envoy's configuration, a config dump of it, or manifests of Istio or Envoy "
        "Gateway, and reports known traps, each with its reason and its fix (docs/check.md). Exit code 0: "
        "none, 1: some, 2: not readable.",
    )
    what = parser.add_argument_group("what to check")
    what.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="all files of one gateway, YAML or JSON; - is standard input",
    )
    what.add_argument(
        "--live", metavar="URL", help="the admin port of a running Envoy, such as http://127.0.0.1:9901"
    )
    router = parser.add_argument_group("the router that the gateway uses; by default one with default settings")
    router.add_argument("--config", type=Path, help="the router's configuration file")
    router.add_argument(
        "--router", metavar="URL", help="the admin port of the running router, such as http://127.0.0.1:9090"
    )
    router.add_argument(
        "--workers", type=number_of_workers, default=1, help="number of the router's processes (default: 1)"
    )
    add_token(router)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--sarif", action="store_true", help="print SARIF 2.1.0, for code review")
    return parser


def _run(options: argparse.Namespace) -> int:
    from extproc.core.errors import ConfigurationError  # noqa: PLC0415  (other commands start faster without these)
    from extproc.gateways.findings import find_traps  # noqa: PLC0415
    from extproc.gateways.inputs import read_gateways  # noqa: PLC0415
    from extproc.gateways.live import dump_of  # noqa: PLC0415
    from extproc.gateways.parsing.sources import read  # noqa: PLC0415
    from extproc.gateways.report import as_json, as_sarif, as_text  # noqa: PLC0415

    if not options.files and not options.live:
        raise ConfigurationError("nothing to check: give FILE or --live URL")
    router = _router(options)
    documents = [each for path in options.files for each in read(_text(path), str(path))]
    if options.live:
        documents += dump_of(options.live)
    found = read_gateways(documents, router)
    findings = find_traps(found.gateways, router, found.unchecked)
    form = as_json if options.json else as_sarif if options.sarif else as_text
    print(form(findings))
    if findings.found and not options.config and not options.router:
        names = ", ".join(pool.name for pool in router.configuration.pools)
        print(
            f"dualpool check envoy: compared with the router's default configuration (pools {names}); "
            "--config FILE or --router URL names yours",
            file=sys.stderr,
        )
    return 1 if findings.found else 0


def _router(options: argparse.Namespace) -> "Router":
    from extproc.config.loading import load  # noqa: PLC0415
    from extproc.config.schema import Configuration  # noqa: PLC0415
    from extproc.core.errors import ConfigurationError  # noqa: PLC0415
    from extproc.gateways.live import router_configuration  # noqa: PLC0415
    from extproc.gateways.router import Router  # noqa: PLC0415

    if options.config and options.router:
        raise ConfigurationError("--config and --router given; allowed: one of them")
    if options.router:
        return Router(router_configuration(options.router, bearer_of(options)), options.workers)
    return Router(load(options.config) if options.config else Configuration(), options.workers)


def _text(path: Path) -> str:
    from extproc.core.errors import ConfigurationError  # noqa: PLC0415
    from extproc.documents import text_of  # noqa: PLC0415
    from extproc.gateways.parsing.sources import MAX_JSON_CHARACTERS  # noqa: PLC0415

    piped = str(path) == "-"
    if piped and not sys.stdin:  # Python sets it to None if descriptor 0 is closed
        raise ConfigurationError("FILE -: standard input is closed")
    try:
        content = (
            read_from(sys.stdin.buffer, MAX_JSON_CHARACTERS, "-")
            if piped
            else read_file(path, MAX_JSON_CHARACTERS)
        )
        return text_of(content)
    except OSError as error:
        hint = "; a running Envoy is given with --live" if str(path).startswith(("http:/", "https:/")) else ""
        raise ConfigurationError(f"FILE {path}: {reason_of(error)}{hint}") from error
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error
