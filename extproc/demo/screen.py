"""The demo's output: a table while it runs, and a summary in words that need no glossary."""

from collections.abc import Mapping

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from extproc.demo.latency import Latency
from extproc.demo.outcomes import Outcome, Placement, Row, Summary
from extproc.demo.stack import LONG_POOL_TOKENS, SHORT_POOL, Stack

__all__ = ["LiveTable", "show_addresses", "show_summary", "show_try_it"]

FAILURES_SHOWN = 10
PICTURE = f"""\
 openai client ──▶ Envoy ──▶ short pool  ({SHORT_POOL.context_tokens:,} tokens of context)
                    │ ▲  └─▶ long pool   ({LONG_POOL_TOKENS:,} tokens; the default)
                    ▼ │
                  router     decides by token budget, learns from responses"""


class LiveTable:
    """The table that is updated as responses arrive; rich renders it several times a second."""

    def __init__(self, requests: int) -> None:
        self._requests = requests
        self._rows: dict[str, Row] = {}
        self._total = Row()
        self.learned: Mapping[str, float] = {}

    def add(self, outcome: Outcome) -> None:
        """Count one response."""
        placement = Placement(outcome, SHORT_POOL)
        for row in (self._rows.setdefault(outcome.ask.kind, Row()), self._total):
            row.add(outcome, placement)

    def __rich__(self) -> RenderableType:
        bar = Table.grid(padding=(0, 1))
        answered = f"{self._total.requests} of {self._requests} answered"
        bar.add_row(ProgressBar(self._requests, self._total.requests, width=40), answered)
        learned = ", ".join(f"{key} {ratio:.2f}" for key, ratio in sorted(self.learned.items()))
        ratios = Text(f"Bytes per token: {learned or '-'}", no_wrap=True, overflow="ellipsis")
        return Group(_table(self._rows, self._total), bar, ratios)


def show_addresses(console: Console, stack: Stack) -> None:
    """Show the addresses of all parts."""
    grid = Table.grid(padding=(0, 2))
    for name, address in stack.addresses.items():
        grid.add_row(Text(name, "bold"), address)
    console.print(
        Panel(Group(Text(PICTURE), Text(), grid), title="dualpool demo", title_align="left", expand=False)
    )


def show_summary(console: Console, summary: Summary, latency: Latency | None, seconds: float) -> None:
    """Show the result of the run."""
    console.print(_placements(summary, seconds))
    console.print(_categories(summary))
    if latency is not None:
        added, routed, plain = latency.added_ms, latency.with_router_ms, latency.without_router_ms
        console.print(
            f"[bold]Added latency[/]  {added:.2f} ms at the median: {routed:.2f} ms with the router, "
            f"{plain:.2f} without\n(same request, same Envoy, one request at a time).\n"
        )
    for failure in summary.failures[:FAILURES_SHOWN]:
        console.print(Text(f"failed: {failure}", "red"))
    if len(summary.failures) > FAILURES_SHOWN:
        console.print(Text(f"... and {len(summary.failures) - FAILURES_SHOWN} more", "red"))


def show_try_it(console: Console, url: str, model: str) -> None:
    """Show a command to try."""
    body = f'{{"model": "{model}", "max_tokens": 50, "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    console.print("The demo keeps running. Try it yourself; `x-served-by` in the response names the pool:\n")
    console.print(
        f"  curl -i {url}/v1/chat/completions -H 'content-type: application/json' -d '{body}'",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    console.print('\nWith "max_tokens": 9000 the request goes to the long pool. Ctrl-C stops the demo.')


def _table(rows: Mapping[str, Row], total: Row) -> Table:
    table = Table(title="Requests by kind", title_justify="left")
    table.add_column("kind", no_wrap=True)
    for heading in (
        "sent",
        "short\npool",
        "long\npool",
        "over-\ncounted",
        "mis-\nrouted",
        "re-\npaired",
        "failed",
    ):
        table.add_column(heading, justify="right")
    for kind, row in sorted(rows.items(), key=lambda item: item[0].lower()):
        table.add_row(kind, *_cells(row))
    table.add_section()
    table.add_row("all", *_cells(total), style="bold")
    return table


def _cells(row: Row) -> list[Text]:
    plain = (row.requests, row.short, row.long, row.over_counted, row.misrouted, row.repaired)
    cells = [Text(str(count) if count else "·") for count in plain]
    return [*cells, Text(str(row.failed), "bold red") if row.failed else Text("·")]


def _placements(summary: Summary, seconds: float) -> Group:
    total = summary.total
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right")
    grid.add_column()
    lines = (
        (
            total.requests,
            f"requests in {seconds:.1f} s; {summary.refused_rightly} of them too large for any pool (refused)",
        ),
        (total.short, "served by the short pool"),
        (total.long, "served by the long pool"),
        (total.over_counted, "over-counted: sent long although the short pool would have held them"),
        (total.misrouted, "misrouted: sent short although they did not fit there"),
        (total.repaired, "repaired: served by the long pool after Envoy's retry; no client noticed"),
        (total.failed, "failed"),
    )
    for count, what in lines:
        grid.add_row(Text(str(count), "bold"), what)
    return Group(Text("What happened", "bold"), grid, *_error_lines(summary), Text())


def _error_lines(summary: Summary) -> list[Text]:
    reasons = ", ".join(f"{reason} {count}" for reason, count in summary.reasons.items())
    lines = [Text(f"The router's reasons: {reasons}")]
    if summary.median_abs_error is not None and summary.p90_abs_error is not None:
        error, p90 = f"{summary.median_abs_error:.0%}", f"{summary.p90_abs_error:.0%}"
        text = (
            f"The likeliest count was {error} off at the median, {p90} at p90; requests were placed\n"
            f"by an upper bound; prompts above it (under-counted): {summary.undercounted}."
        )
        lines.append(Text(text))
    return lines


def _categories(summary: Summary) -> Table:
    table = Table(title="Bytes per token by kind of text", title_justify="left")
    table.add_column("kind of text")
    for heading in ("learned", "true (mean)", "error", "responses"):
        table.add_column(heading, justify="right")
    for each in summary.categories:
        true = "-" if each.true is None else f"{each.true:.2f}"
        error = "-" if each.true is None else f"{each.learned / each.true - 1:+.1%}"
        table.add_row(each.key, f"{each.learned:.2f}", true, error, str(each.requests))
    return table
