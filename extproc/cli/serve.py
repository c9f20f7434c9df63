"""`dualpool serve`: run the router."""

import argparse
import os
import signal
from pathlib import Path
from typing import Protocol

from extproc.cli.workers import number_of_workers

__all__ = ["add"]


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "serve",
        help="run the ext_proc server",
        description="Runs the router until SIGTERM, then drains; a second SIGTERM ends the drain. SIGHUP "
        "reloads FILE.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file; all settings have defaults")
    parser.add_argument(
        "--workers", type=number_of_workers, default=1, metavar="N",
        help="number of processes, each a separate endpoint: with its own port, from that of listen.address "
        "upwards, or its own Unix socket (default: 1)",
    )  # fmt: skip
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, _end_at_once)
    hangups = _hangups()
    _inherit_no_signals()
    from extproc.config.loading import load  # noqa: PLC0415  (other commands start faster without these)
    from extproc.server.freed_memory import share_arenas  # noqa: PLC0415
    from extproc.telemetry.log import configure_logging  # noqa: PLC0415
    from extproc.telemetry.stray_lines import log_stray_lines  # noqa: PLC0415

    share_arenas()
    configuration = load(options.config)
    configure_logging(configuration.log_level)
    log_stray_lines()
    if options.workers > 1:
        from extproc.workers.supervisor import Supervisor  # noqa: PLC0415

        _serve(Supervisor(configuration, options.config, options.workers), hangups)
    else:
        from extproc.server.app import App  # noqa: PLC0415  (loads gRPC, which a supervisor does not need)

        _serve(App(configuration, options.config), hangups)
    return 0


def _end_at_once(*_: object) -> None:
    """End a process that still starts, and has nothing to drain. The kernel does so itself, but not in a container
    without an init process: there SIGTERM is ignored until something handles it.
    """
    os._exit(0)


def _hangups() -> list[int]:
    """Return a list that gets each SIGHUP from now on, which would otherwise end a process that still starts."""
    hangups: list[int] = []
    signal.signal(signal.SIGHUP, lambda number, _: hangups.append(number))
    return hangups


def _inherit_no_signals() -> None:
    """Undo what the program that started this one has blocked or ignored; workers inherit it, too.

    A blocked SIGTERM would end nothing, and the SIGKILL that follows would end all streams. With SIGCHLD ignored a
    worker's exit code is lost, and with SIGALRM its own alarm.
    """
    for number in (signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


class _Server(Protocol):
    def run(self) -> None: ...

    def end(self) -> None: ...

    def reload(self) -> None: ...


def _serve(server: _Server, hangups: list[int]) -> None:
    """Run until SIGTERM or SIGINT, then drain; a second signal ends the drain at once. SIGHUP reloads the file, as
    do those that came before (`hangups`).
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.end())
    signal.signal(signal.SIGHUP, lambda *_: server.reload())
    if hangups:
        server.reload()
    server.run()
    # At its exit the interpreter takes back its handlers, but not this: the exit code stays that of a clean end.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
