"""The plan on a terminal: short tables and the recommendation in one sentence."""

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from extproc.planning.analytic import Analysis, Split
from extproc.planning.plan import Plan
from extproc.planning.runner import FleetEstimate

__all__ = ["plan_renderables", "text_table"]

THRESHOLDS_SHOWN = 9


def plan_renderables(plan: Plan) -> Iterator[RenderableType]:
    """Yield what `dualpool plan` prints, in order."""
    work = plan.workload
    yield Text(
        f"{plan.profile}, {plan.rate:,g} req/s; {work.requests:,} requests of {work.source}: mean {work.mean_prompt:,.0f} in, "
        f"{work.mean_output:,.0f} out, P99 {work.p99_total:,} tokens; KV cache {plan.kv_tokens:,} tokens, "
        f"max_num_batched_tokens {plan.max_num_batched_tokens:,}"
    )
    if work.note:
        yield Text(work.note)
    yield _fleet_table(plan)
    yield _split_table(plan.analysis)
    yield _sensitivity_table(plan)
    if plan.fleets:
        yield _simulated_table(plan)
    yield Text(plan.recommendation, style="bold")


def text_table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    """Return a plain table; the first column is text, the others are numbers."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _fleet_table(plan: Plan) -> Table:
    gpus = plan.gpus_per_instance
    analysis = plan.analysis
    rows = [
        (f"{b.name}, {b.context_tokens:,}", f"{b.rate_per_instance:.2f}", f"{b.instances:,}", f"{b.instances * gpus:,}", usd(b.usd_per_year))
        for b in (analysis.long, analysis.right_sized)
    ]
    best = analysis.best
    rates = f"{best.short_rate:.2f} / {best.long_rate:.2f}"
    sizes = f"{best.short_instances} + {best.long_instances}"
    rows.append((f"two pools at {best.threshold:,}", rates, sizes, f"{best.instances * gpus:,}", usd(best.usd_per_year)))
    return text_table("Cost model", ("fleet", "req/s each", "instances", "GPUs", "a year"), rows)


def _split_table(analysis: Analysis) -> Table:
    rows = [
        (
            f"{s.threshold:,}" + (" *" if s is analysis.best else ""),
            f"{s.alpha:.3f}",
            f"{s.rho:.2f}",
            f"{s.closed_form:+.1%}",
            f"{s.honest_form:+.1%}",
            f"{s.saving_long:+.1%}",
            f"{s.saving_right_sized:+.1%}",
            "never" if s.break_even_rate is None else f"{s.break_even_rate:,.0f}",
        )
        for s in _shown(analysis)
    ]
    band = "no threshold saves" if analysis.band is None else f"{analysis.band[0]:,} to {analysis.band[1]:,} keep 80 % of the best"
    columns = ("threshold", "alpha", "rho", "closed form", "honest form", "vs long", "vs right-sized", "from req/s")
    return text_table(f"Thresholds ({band})", columns, rows)


def _shown(analysis: Analysis) -> list[Split]:
    """Choose thresholds to print: the doublings that split anything, and the best."""
    splits = [s for s in analysis.splits if 0 < s.alpha < 1 and s.threshold & (s.threshold - 1) == 0]
    return sorted({*splits[:THRESHOLDS_SHOWN], analysis.best}, key=lambda s: s.threshold)


def _sensitivity_table(plan: Plan) -> Table:
    rows = [
        (
            one.rule.value,
            f"{one.best.threshold:,}",
            f"{one.best.alpha:.3f}",
            f"{alpha_at(one, plan.analysis.best.threshold):.3f}",
            f"{one.best.instances} / {one.right_sized.instances}",
            f"{one.best.saving_right_sized:+.1%}",
        )
        for one in plan.sensitivity
    ]
    at = f"alpha at {plan.analysis.best.threshold:,}"
    columns = ("declared max_tokens", "best threshold", "alpha", at, "two / one pool", "saving")
    return text_table("Sensitivity to what clients declare", columns, rows)


def alpha_at(analysis: Analysis, threshold: int) -> float:
    """Return the short pool's share at a threshold of the analysis."""
    return next(split.alpha for split in analysis.splits if split.threshold == threshold)


def _simulated_table(plan: Plan) -> Table:
    rows = [fleet_row(fleet, plan.gpus_per_instance) for fleet in plan.fleets]
    columns = ("fleet", "instances", "95 % CI", "GPUs", "GPU-h/year", "busy", "TTFT P50/P99 s", "TPOT P50/P99 ms", "preempt/1000", "misrouted", "rejected", "truncated")
    return text_table("Simulated: the smallest fleets that meet the objective", columns, rows)


def fleet_row(fleet: FleetEstimate, gpus: int) -> tuple[str, ...]:
    """Return one fleet's figures as text."""
    did = fleet.typical.summary
    sizes = " + ".join(str(size) for size in fleet.typical.instances)
    busy = " / ".join(f"{use.busy:.0%}" for use in did.pools)
    return (
        fleet.design.name,
        sizes,
        "one seed" if fleet.half_width != fleet.half_width else f"{fleet.instances:.1f} ± {fleet.half_width:.1f}",
        f"{fleet.typical.total * gpus:,}",
        f"{fleet.typical.total * gpus * 8760 / 1e6:,.2f}M",
        busy,
        f"{did.all.ttft_p50_s:.2f} / {did.all.ttft_p99_s:.2f}",
        f"{did.all.tpot_p50_s * 1e3:.0f} / {did.all.tpot_p99_s * 1e3:.0f}",
        f"{did.preemptions_per_1000:.1f}",
        f"{did.misrouted:.2%}",
        f"{did.rejected:.2%}",
        f"{did.truncated:.2%}",
    )


def usd(amount: float | None) -> str:
    """Return dollars in millions, or a dash."""
    return "-" if amount is None else f"${amount / 1e6:,.2f}M"
