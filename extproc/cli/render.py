"""`dualpool render`: write a configuration for a gateway, or for the pools' servers, that matches the router's."""

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from extproc.cli.workers import number_of_workers

if TYPE_CHECKING:
    from extproc.config.schema import Configuration

__all__ = ["add"]

KINDS = {
    "envoy": "a bootstrap configuration of Envoy",
    "istio": "an EnvoyFilter, and the routes it patches",
    "envoy-gateway": "policies and routes of Envoy Gateway",
    "vllm": "a command for each pool's servers",
}
TLS = {"istio": "a DestinationRule with `tls`", "envoy-gateway": "a BackendTLSPolicy"}
MODES = ("streamed", "buffered", "full-duplex")


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "render",
        help="write a gateway configuration that matches the router's",
        description="Writes to stdout a configuration that matches the router's pools, limits, times and "
        "header names. All kinds but vllm need dualpool[render].",
    )
    parser.add_argument("kind", choices=KINDS, help="; ".join(f"{kind}: {what}" for kind, what in KINDS.items()))
    parser.add_argument("--config", type=Path, help="the router's configuration file; all settings have defaults")
    parser.add_argument(
        "--mode",
        choices=MODES,
        default=MODES[0],
        help="envoy: how bodies are sent to the router (default: %(default)s, which the other gateways use)",
    )
    parser.add_argument(
        "--workers",
        type=number_of_workers,
        default=1,
        help="envoy: number of the router's processes (`dualpool serve --workers`), each with its own address "
        "(default: 1)",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from extproc.config.loading import load  # noqa: PLC0415  (other commands start faster without these)
    from extproc.core.errors import ConfigurationError  # noqa: PLC0415
    from extproc.gateways.render.numbers import Mode, Numbers  # noqa: PLC0415
    from extproc.gateways.render.vllm import render_vllm  # noqa: PLC0415

    if options.workers != 1 and options.kind != "envoy":
        raise ConfigurationError(
            f"--workers: {options.workers} given; {options.kind} supports only one port of the router"
        )
    if options.mode != MODES[0] and options.kind != "envoy":
        raise ConfigurationError(f"--mode: {options.mode} given; {options.kind} has no other than {MODES[0]}")
    configuration = load(options.config)
    if configuration.listen.tls is not None and options.kind in TLS:
        raise ConfigurationError(
            f"listen.tls is set, and {options.kind} needs {TLS[options.kind]} for the router, which is not "
            "rendered; render without listen.tls, and add it"
        )
    if options.kind == "vllm":
        print(render_vllm(configuration), end="")
        return 0
    _refuse_what_is_not_rendered(configuration)
    numbers = Numbers(configuration, Mode(options.mode), options.workers)
    try:
        module = import_module(f"extproc.gateways.render.{options.kind.replace('-', '_')}")
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{error.name} is not installed: pip install 'dualpool[render]'") from error
    writers: dict[str, Callable[[Numbers], str]] = vars(module)
    print(writers[f"render_{options.kind.replace('-', '_')}"](numbers), end="")
    return 0


def _refuse_what_is_not_rendered(configuration: "Configuration") -> None:
    """Raise ConfigurationError for settings that a gateway would not match, with nothing to show it."""
    from extproc.core.errors import ConfigurationError  # noqa: PLC0415
    from extproc.core.router.learning_budget import LearningSource  # noqa: PLC0415

    if configuration.learning.source is LearningSource.ACCESS_LOG:
        raise ConfigurationError(
            "learning.source: access_log given; the access log that the router then learns from is not rendered: "
            "take envoy/streamed-access-log.yaml, or render with source: response and add what that file lists "
            "at its top"
        )
    address = configuration.listen.address
    if address.endswith(":0") and not address.startswith("unix:"):
        raise ConfigurationError(
            f"listen.address: {address!r} given; a port that is chosen when the router starts cannot be rendered"
        )
