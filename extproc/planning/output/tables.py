"""The plan on a terminal: short tables and the recommendation in one sentence."""

from collections.abc import Iterator, Sequence
from math import isnan

from rich.table import Table
from rich.text import Text

from extproc.planning.design.answer import Plan
from extproc.planning.model.costs import Costs
from extproc.planning.model.splits import Analysis, Split
from extproc.planning.simulation.runner import FleetEstimate
from extproc.planning.simulation.summary import ClassFigures

__all__ = ["fleet_tables", "plan_tables", "plan_texts", "text_table"]

THRESHOLDS_SHOWN = 9
MILLION = 1_000_000
# Three narrow tables and not a wide one: with a fleet's name each of them fits 80 columns, and a printed page.
SIZE_COLUMNS = ("fleet", "instances x GPUs", "95 % CI", "GPUs", "GPU-h/year", "a year")
SERVICE_COLUMNS = ("fleet", "TTFT s", "TPOT ms", "preempted", "misrouted", "rejected", "truncated")
LOAD_COLUMNS = ("fleet", "sequences", "KV fill")


def plan_texts(plan: Plan) -> Iterator[Text]:
    """Yield what was planned, and what to know about it."""
    work = plan.workload
    balanced = f"; balanced by {plan.balancing}" if plan.balancing else ""
    yield Text(
        f"{plan.profile}, {plan.rate:,g} req/s; {work.requests:,} requests of {work.source}: mean "
        f"{work.mean_prompt:,.0f} in, {work.mean_output:,.0f} out, P99 {work.p99_total:,} tokens; KV cache "
        f"{plan.kv_tokens:,} tokens, max_num_batched_tokens {plan.max_num_batched_tokens:,}{balanced}"
    )
    yield Text(f"Objective, of 99 % of each class: {plan.objective}")
    for note in plan.notes:
        yield Text(note)


def plan_tables(plan: Plan, costs: Costs, *, full: bool) -> Iterator[Table]:
    """Yield the tables; `full` has more: how full the simulated instances are, and every design that was searched.

    Where fleets were simulated they come first, and the cost model, which knows no tails, is told as such.
    """
    if plan.fleets:
        title = "Simulated: the smallest fleets that meet the objective"
        yield from fleet_tables(title, plan.fleets, costs, full=full)
    if plan.days:
        yield _day_table(plan)
    if full and plan.searched:
        yield _searched_table(plan)
    yield _cost_table(plan)
    yield _split_table(plan.analysis)
    yield _sensitivity_table(plan)


def text_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a plain table of one-line rows; the first column is text, the others are numbers."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def fleet_tables(title: str, fleets: Sequence[FleetEstimate], costs: Costs, *, full: bool) -> Iterator[Table]:
    """Yield what simulated fleets are and cost, and how they did, one fleet in a row."""
    spares = f", {costs.spare} spare(s) in each pool included" if costs.spare else ""
    yield text_table(title + spares, SIZE_COLUMNS, [_size_row(fleet, costs) for fleet in fleets])
    yield _length_table(title, fleets)
    served = f"{title}: P50 / P99 of times, preemptions per 1,000 requests, shares of requests"
    yield text_table(served, SERVICE_COLUMNS, [_service_row(fleet) for fleet in fleets])
    if full:
        load = f"{title}: means of an instance of each pool"
        yield text_table(load, LOAD_COLUMNS, [_load_row(fleet) for fleet in fleets])


def _length_table(title: str, fleets: Sequence[FleetEstimate]) -> Table:
    """Return what users feel, by the length of their requests: P99 TTFT with its 95 % interval, and P99 TPOT."""
    names = [each.name for each in fleets[0].typical.summary.by_length]
    rows = [(fleet.design.name, *(_felt(each) for each in fleet.typical.summary.by_length)) for fleet in fleets]
    return text_table(f"{title}: P99 TTFT s / TPOT ms by tokens of a request", ("fleet", *names), rows)


def _felt(figures: ClassFigures) -> str:
    did = figures.latency
    if did.requests == 0:
        return "-"
    half = "" if isnan(figures.ttft_p99_half_s) else f" ± {figures.ttft_p99_half_s:.2f}"
    tpot = "-" if isnan(did.tpot_p99_s) else f"{did.tpot_p99_s * 1e3:.0f}"
    return f"{did.ttft_p99_s:.2f}{half} / {tpot}"


def _day_table(plan: Plan) -> Table:
    rows = [
        (
            day.name,
            f"{day.fixed:,.0f}",
            "-" if day.following is None else f"{day.following:,.0f}",
            "-" if day.head_room is None else f"{day.head_room:.0%}",
            f"{day.foreseen:,.0f}",
        )
        for day in plan.days
    ]
    title = "A day in GPU-hours, spares included: the fleet of the peak, following the load, foreseeing it"
    return text_table(title, ("fleet", "fixed", "following", "with head-room", "foreseen"), rows)


def _searched_table(plan: Plan) -> Table:
    rows = [
        (
            " and ".join(f"{limit:,}" for limit in each.limits[:-1]) or "one pool",
            " + ".join(f"{pool.instances} x {pool.gpus_per_instance}" for pool in each.pools),
            f"{each.gpus:,}",
        )
        for each in sorted(plan.searched, key=lambda each: each.limits)
    ]
    title = "Searched pool by pool, to choose what is simulated: without spares, to within 4 %"
    return text_table(title, ("thresholds", "instances x GPUs", "GPUs"), rows)


def _cost_table(plan: Plan) -> Table:
    gpus, best = plan.gpus_per_instance, plan.analysis.best
    rows = [
        (
            f"{one.name}, {one.context_tokens:,}",
            f"{one.rate_per_instance:.2f}",
            f"{one.instances:,}",
            f"{one.instances * gpus:,}",
            _usd(one.usd_per_year),
        )
        for one in (plan.analysis.long, plan.analysis.right_sized)
    ]
    split = (
        f"two pools at {best.threshold:,}",
        f"{best.short_rate:.2f} / {best.long_rate:.2f}",
        f"{best.short_instances} + {best.long_instances}",
        f"{best.instances * gpus:,}",
        _usd(best.usd_per_year),
    )
    return text_table(_cost_title(plan), ("fleet", "req/s each", "instances", "GPUs", "a year"), [*rows, split])


def _cost_title(plan: Plan) -> str:
    return "Cost model (means only; the simulated fleets count)" if plan.fleets else "Cost model"


def _split_table(analysis: Analysis) -> Table:
    rows = [
        (
            f"{s.threshold:,}" + (" *" if s is analysis.best else ""),
            f"{s.alpha:.3f}",
            f"{s.rho:.2f}",
            _percent(s.closed_form),
            _percent(s.honest_form),
            _percent(s.saving_long),
            _percent(s.saving_right_sized),
            "never" if s.break_even_rate is None else f"{s.break_even_rate:,.0f}",
        )
        for s in _shown(analysis)
    ]
    band = "no threshold saves"
    if analysis.band is not None:
        band = f"{analysis.band[0]:,} to {analysis.band[1]:,} keep 80 % of the best"
    columns = ("threshold", "alpha", "rho", "closed", "honest", "vs long", "vs right", "from req/s")
    return text_table(f"Thresholds ({band})", columns, rows)


def _shown(analysis: Analysis) -> list[Split]:
    """Choose thresholds to print: the doublings that split anything, and the best."""
    doublings = [s for s in analysis.splits if 0 < s.alpha < 1 and s.threshold & (s.threshold - 1) == 0]
    return sorted({*doublings[:THRESHOLDS_SHOWN], analysis.best}, key=lambda split: split.threshold)


def _sensitivity_table(plan: Plan) -> Table:
    threshold = plan.analysis.best.threshold
    rows = [
        (
            one.rule.value,
            f"{_alpha_at(one, threshold):.3f}",
            f"{one.best.threshold:,}",
            f"{one.best.alpha:.3f}",
            f"{one.best.instances} / {one.right_sized.instances}",
            _percent(one.best.saving_right_sized),
        )
        for one in plan.sensitivity
    ]
    columns = ("max_tokens", f"alpha at {threshold:,}", "best threshold", "alpha", "two / one pool", "saving")
    return text_table("Sensitivity to what clients declare", columns, rows)


def _percent(share: float) -> str:
    """Return a saving in per cent; nothing is never minus nothing."""
    return f"{round(share, 3) + 0.0:+.1%}"


def _alpha_at(analysis: Analysis, threshold: int) -> float:
    return next((split.alpha for split in analysis.splits if split.threshold == threshold), float("nan"))


def _size_row(fleet: FleetEstimate, costs: Costs) -> tuple[str, ...]:
    interval = "one seed" if isnan(fleet.half_width) else f"{fleet.instances:.1f} ± {fleet.half_width:.1f}"
    cost = costs.of(fleet)
    if fleet.not_steady:
        interval += ", not steady"
    return (
        fleet.design.name,
        cost.shape,
        interval,
        f"{cost.gpus:,}",
        _hours(cost.gpu_hours_per_year),
        _usd(cost.usd_per_year),
    )


def _service_row(fleet: FleetEstimate) -> tuple[str, ...]:
    did = fleet.typical.summary
    return (
        fleet.design.name,
        f"{did.all.ttft_p50_s:.2f} / {did.all.ttft_p99_s:.2f}",
        f"{did.all.tpot_p50_s * 1e3:.0f} / {did.all.tpot_p99_s * 1e3:.0f}",
        f"{did.preemptions_per_1000:.1f}",
        f"{did.misrouted:.2%}",
        f"{did.rejected:.2%}",
        f"{did.truncated:.2%}",
    )


def _load_row(fleet: FleetEstimate) -> tuple[str, ...]:
    pools = fleet.typical.summary.pools
    return (
        fleet.design.name,
        " / ".join(f"{use.mean_sequences:.0f}" for use in pools),
        " / ".join(f"{use.kv_fill:.0%}" for use in pools),
    )


def _usd(amount: float | None) -> str:
    if amount is None:
        return "-"
    return f"${amount / MILLION:,.2f}M" if amount >= MILLION else f"${amount / 1e3:,.0f}K"


def _hours(hours: int) -> str:
    return f"{hours / MILLION:,.2f}M" if hours >= MILLION else f"{hours:,}"
