"""`dualpool top`: the content of the live page, in a terminal."""

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from extproc.cli.token import PAGE_ERRORS, add_token, authorized_request, bearer_of, why
from extproc.core.errors import ConfigurationError, printable
from extproc.fetching import fetched

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table

__all__ = ["add"]

MAX_LINE_BYTES = 1024 * 1024
SILENT_S = 10.0
RECENT = 12
NAME_WIDTH = 12  # with the space behind it, in a terminal that is too narrow for everything
HINT = "; is it a router's admin address?"
Event = dict[str, Any]  # as server/live.py sends it
EVENT = {"about", "figures", "recent"}


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "top",
        help="show what a running router is doing, in the terminal",
        description="Shows pools, models and the latest decisions of a running router, once a second, until "
        "Ctrl-C. The first page of its admin port shows the same.",
    )
    parser.add_argument(
        "address", nargs="?", default="127.0.0.1:9090", help="admin address (default: %(default)s)"
    )
    parser.add_argument("--once", action="store_true", help="print the current state, and exit")
    add_token(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from rich.console import Console  # noqa: PLC0415  (other commands start faster without)
    from rich.live import Live  # noqa: PLC0415

    events, console = _events(options.address, bearer_of(options)), Console()
    if options.once:
        events = islice(events, 1)
    screens = _screens(events)
    # Live shows nothing where the output is a pipe, or a terminal that cannot move its cursor.
    if options.once or not console.is_terminal or console.is_dumb_terminal:
        for each in screens:
            console.print(each)
        return 0
    try:
        with Live(console=console, auto_refresh=False, screen=True) as live:
            for each in screens:
                live.update(each, refresh=True)
    except KeyboardInterrupt:
        pass
    return 0


def _screens(events: Iterator[Event]) -> "Iterator[RenderableType]":
    recent: list[dict[str, Any]] = []
    for event in events:
        recent = [*recent, *(event["recent"] or [])][-RECENT:]
        yield screen(event, recent)


def _events(address: str, token: str) -> Iterator[Event]:
    """Yield the router's events. Raises ConfigurationError if it cannot be reached or closes the stream."""
    url = f"{address if '://' in address else f'http://{address}'}".rstrip("/") + "/live"
    try:
        with fetched(authorized_request(url, token), SILENT_S) as response:
            while line := response.readline(MAX_LINE_BYTES):
                if line.startswith(b"data: "):
                    event = json.loads(line[6:])
                    if not isinstance(event, dict) or not event.keys() >= EVENT:
                        raise ValueError("not the figures of a router")
                    yield event
    except PAGE_ERRORS as error:
        raise ConfigurationError(f"{url}: {why(error, token, HINT)}") from error
    raise ConfigurationError(f"{url}: the router has closed the stream")


def screen(event: Event, recent: list[dict[str, Any]]) -> "RenderableType":
    """Return what is shown for one event."""
    from rich.console import Group  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    about, figures = event["about"], event["figures"]
    window = "since it started" if event["since_start"] else "of the last 5 minutes"
    head = f"dualpool {about['version']} {about['mode']}: {event['per_s']:.1f} decisions/s; figures {window}"
    trouble = [f"{what} ({cause}): {count:,.0f}" for what, cause, count in figures["trouble"]]
    return Group(
        Text(head, style="bold"),
        # Before the rest, of which a low terminal shows only the beginning.
        Text("\n".join(trouble) or "no problems", style="bold red" if trouble else "green"),
        _pools(about["pools"], event),
        _models(figures["models"]),
        Text("individual decisions are not shown: the router has several workers", style="dim")
        if event["recent"] is None
        else _recent(recent),
    )


def _pools(pools: list[dict[str, Any]], event: Event) -> "_Table":
    table = _Table("pool", "routed up to", "share", "per s")
    for pool, share, now in zip(pools, event["figures"]["shares"], event["by_pool"], strict=True):
        table.add_row(pool["name"], f"{pool['max_budget_tokens']:,}", f"{share:.1%}", f"{now:.1f}")
    return table


def _models(models: list[dict[str, Any]]) -> "_Table":
    from rich.text import Text  # noqa: PLC0415

    table = _Table(
        "model", "per s", "to smaller\npools", "error\np50", "error\np90", "bound /\nactual", "above\nit"
    )
    for each in models:
        shares = (_share(each[name]) for name in ("routed", "error_p50", "error_p90"))
        bound = "-" if each["bound_ratio"] is None else f"{each['bound_ratio']:.2f}"
        # Names come from clients: as Text they are not read as markup.
        table.add_row(
            Text(printable(each["name"]) or "(unknown)"),
            f"{each['per_s']:.1f}",
            *shares,
            bound,
            _share(each["under_counted"]),
        )
    return table


def _recent(recent: list[dict[str, Any]]) -> "RenderableType":
    from rich.text import Text  # noqa: PLC0415

    if not recent:  # as always with --once: decisions are collected only while somebody watches
        return Text("no decision since this view began", style="dim")
    table = _Table("api", "bytes", "prompt", "bound", "budget", "pool", "reason")
    for each in reversed(recent):
        tokens = ("-" if each[name] is None else f"{each[name]:,.0f}" for name in ("estimate", "bound", "budget"))
        table.add_row(each["api"], f"{each['body_bytes']:,}", *tokens, each["pool"], each["reason"])
    return table


class _Table:
    """Columns of which a narrow terminal shows fewer: a number that is cut would be another one.

    The first column has names, which give way before a whole column does.
    """

    def __init__(self, *columns: str) -> None:
        self._columns = columns
        self._rows: list[tuple[RenderableType, ...]] = []

    def add_row(self, *cells: "RenderableType") -> None:
        """Add a row, with a cell for each column."""
        self._rows.append(cells)

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[RenderableType]":
        """Yield the first columns, as many as fit beside shortened names."""
        from rich.measure import Measurement  # noqa: PLC0415

        for count in range(len(self._columns), 1, -1):
            if Measurement.get(console, options, self._of(1, count)).maximum + NAME_WIDTH <= options.max_width:
                break
        yield self._of(0, count)

    def _of(self, start: int, end: int) -> "Table":
        from rich.table import Table  # noqa: PLC0415

        table = Table(box=None, pad_edge=False)
        for index, column in enumerate(self._columns[start:end], start):
            first = index == 0
            table.add_column(column, justify="left" if first else "right", no_wrap=not first, vertical="bottom")
        for cells in self._rows:
            table.add_row(*cells[start:end])
        return table


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
