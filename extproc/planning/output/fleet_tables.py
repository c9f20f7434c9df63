"""Tables of simulated fleets, one row per fleet, and the plain table that all tables of a plan use."""

from collections.abc import Iterator, Sequence
from math import isnan

from rich.table import Table

from extproc.planning.model.costs import Costs
from extproc.planning.simulation.runner import FleetEstimate
from extproc.planning.simulation.summary import ClassFigures

__all__ = ["fleet_tables", "text_table", "usd_text"]

MILLION = 1_000_000
# Narrow tables instead of a wide one: with the fleet's name, each fits 80 columns and a printed page.
SIZE_COLUMNS = ("fleet", "instances x GPUs", "95 % CI", "GPUs", "GPU-h/year", "a year")
BALANCING_COLUMNS = ("fleet", "balanced by", "done by")
SERVICE_COLUMNS = ("fleet", "TTFT s", "TPOT ms", "preempted", "misrouted", "rejected", "truncated")
LOAD_COLUMNS = ("fleet", "sequences", "KV fill")


def fleet_tables(title: str, fleets: Sequence[FleetEstimate], costs: Costs, *, full: bool) -> Iterator[Table]:
    """Yield tables of the size, cost and service of simulated fleets, one row per fleet.

    `full` adds the mean load of an instance in each pool.
    """
    spares = f", {costs.spare} spare(s) per pool included" if costs.spare else ""
    yield text_table(title + spares, SIZE_COLUMNS, [_size_row(fleet, costs) for fleet in fleets])
    if rules := [(f.design.name, f.design.balancing) for f in fleets if f.design.balancing is not None]:
        rows = [(name, str(rule), rule.needs or "Envoy") for name, rule in rules]
        yield text_table(f"{title}: balancing", BALANCING_COLUMNS, rows)
    yield _length_table(title, fleets)
    served = f"{title}: P50 / P99 latencies, preemptions per 1,000 requests, shares of requests"
    yield text_table(served, SERVICE_COLUMNS, [_service_row(fleet) for fleet in fleets])
    if full:
        load = f"{title}: mean load of an instance in each pool"
        yield text_table(load, LOAD_COLUMNS, [_load_row(fleet) for fleet in fleets])


def text_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a plain table of one-line rows, with the first column left-aligned and the others right-aligned."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def usd_text(amount: float | None) -> str:
    """Return dollars per year in thousands or millions; a dash if no price is known."""
    if amount is None:
        return "-"
    return f"${amount / MILLION:,.2f}M" if amount >= MILLION else f"${amount / 1e3:,.0f}K"


def _length_table(title: str, fleets: Sequence[FleetEstimate]) -> Table:
    """Return a table of latencies by request length: P99 TTFT with its 95 % interval, and P99 TPOT."""
    names = [each.name for each in fleets[0].typical.summary.by_length]
    rows = [
        (fleet.design.name, *(_latency_cell(each) for each in fleet.typical.summary.by_length)) for fleet in fleets
    ]
    return text_table(f"{title}: P99 TTFT s / TPOT ms by tokens of a request", ("fleet", *names), rows)


def _latency_cell(figures: ClassFigures) -> str:
    latency = figures.latency
    if latency.requests == 0:
        return "-"
    half = "" if isnan(figures.ttft_p99_half_s) else f" ± {figures.ttft_p99_half_s:.2f}"
    return f"{latency.ttft_p99_s:.2f}{half} / {_ms(latency.tpot_p99_s)}"


def _ms(seconds: float) -> str:
    """Return milliseconds; a dash if there are none, as of responses of one token."""
    return "-" if isnan(seconds) else f"{seconds * 1e3:.0f}"


def _size_row(fleet: FleetEstimate, costs: Costs) -> tuple[str, ...]:
    interval = "one seed" if isnan(fleet.half_width) else f"{fleet.instances:.1f} ± {fleet.half_width:.1f}"
    cost = costs.of(fleet)
    if fleet.not_steady:
        interval += ", not steady"
    if fleet.not_judged:
        interval += ", not all judged"
    return (
        fleet.design.name,
        cost.shape,
        interval,
        f"{cost.gpus:,}",
        _hours(cost.gpu_hours_per_year),
        usd_text(cost.usd_per_year),
    )


def _service_row(fleet: FleetEstimate) -> tuple[str, ...]:
    summary = fleet.typical.summary
    return (
        fleet.design.name,
        f"{summary.all.ttft_p50_s:.2f} / {summary.all.ttft_p99_s:.2f}",
        f"{_ms(summary.all.tpot_p50_s)} / {_ms(summary.all.tpot_p99_s)}",
        f"{summary.preemptions_per_1000:.1f}",
        f"{summary.misrouted:.2%}",
        f"{summary.rejected:.2%}",
        f"{summary.truncated:.2%}",
    )


def _load_row(fleet: FleetEstimate) -> tuple[str, ...]:
    pools = fleet.typical.summary.pools
    return (
        fleet.design.name,
        " / ".join(f"{use.mean_sequences:.0f}" for use in pools),
        " / ".join(f"{use.kv_fill:.0%}" for use in pools),
    )


def _hours(hours: int) -> str:
    return f"{hours / MILLION:,.2f}M" if hours >= MILLION else f"{hours:,}"
