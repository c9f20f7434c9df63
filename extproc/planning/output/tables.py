"""The plan on a terminal: introductory sentences and short tables."""

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from extproc.planning.design.answer import Plan
from extproc.planning.model.costs import Costs
from extproc.planning.model.splits import Analysis, Split
from extproc.planning.output.fleet_tables import fleet_tables, text_table, usd_text

__all__ = ["plan_tables", "plan_texts"]

THRESHOLDS_SHOWN = 9


def plan_texts(plan: Plan) -> Iterator[Text]:
    """Yield sentences on the inputs, the objective, and the plan's notes."""
    work = plan.workload
    balanced = f"; balanced by {plan.balancing}" if plan.balancing else ""
    yield Text(
        f"{plan.profile}, {plan.rate:,g} req/s; {work.requests:,} requests of {work.source}: mean "
        f"{work.mean_prompt:,.0f} in, {work.mean_output:,.0f} out, P99 {work.p99_total:,} tokens; KV cache "
        f"{plan.kv_tokens:,} tokens, max_num_batched_tokens {plan.max_num_batched_tokens:,}{balanced}"
    )
    yield Text(f"Objective, for 99 % of each class: {plan.objective}")
    for note in plan.notes:
        yield Text(note)


def plan_tables(plan: Plan, costs: Costs, *, full: bool) -> Iterator[Table]:
    """Yield the tables; `full` adds the load of the simulated instances and every design that was searched.

    Simulated fleets come first if there are any; the cost model's table is then titled as one of means only.
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
    title = "GPU-hours of a day, spares included: fixed at the peak, following the load, foreseeing it"
    return text_table(title, ("fleet", "fixed", "following", "with head-room", "foreseen"), rows)


def _searched_table(plan: Plan) -> Table:
    rows = [
        (
            " and ".join(f"{limit:,}" for limit in each.limits[:-1]) or "one pool",
            " + ".join(f"{pool.instances} x {pool.gpus_per_instance}" for pool in each.pools),
            f"{each.gpus:,}",
            *([str(each.balancing)] if each.balancing is not None else []),
        )
        for each in sorted(plan.searched, key=lambda each: each.limits)
    ]
    title = "Searched pool by pool, to choose the simulated designs: without spares, within 4 %"
    columns = ("thresholds", "instances x GPUs", "GPUs", "balanced by")
    return text_table(title, columns[: len(rows[0])], rows)


def _cost_table(plan: Plan) -> Table:
    gpus, best = plan.gpus_per_instance, plan.analysis.best
    rows = [
        (
            f"{one.name}, {one.context_tokens:,}",
            f"{one.rate_per_instance:.2f}",
            f"{one.instances:,}",
            f"{one.instances * gpus:,}",
            usd_text(one.usd_per_year),
        )
        for one in (plan.analysis.long, plan.analysis.right_sized)
    ]
    split = (
        f"two pools at {best.threshold:,}",
        f"{best.short_rate:.2f} / {best.long_rate:.2f}",
        f"{best.short_instances} + {best.long_instances}",
        f"{best.instances * gpus:,}",
        usd_text(best.usd_per_year),
    )
    return text_table(_cost_title(plan), ("fleet", "req/s each", "instances", "GPUs", "a year"), [*rows, split])


def _cost_title(plan: Plan) -> str:
    return "Cost model (means only: rely on the simulated fleets)" if plan.fleets else "Cost model"


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
    """Choose the thresholds to print: powers of two that split the requests, and the best one."""
    doublings = [s for s in analysis.splits if 0 < s.alpha < 1 and s.threshold & (s.threshold - 1) == 0]
    return sorted({*doublings[:THRESHOLDS_SHOWN], analysis.best}, key=lambda split: split.threshold)


def _sensitivity_table(plan: Plan) -> Table:
    threshold = plan.analysis.best.threshold
    rows = [
        (
            one.rule.value,
            _alpha_at(one, threshold),
            f"{one.best.threshold:,}",
            f"{one.best.alpha:.3f}",
            f"{one.best.instances} / {one.right_sized.instances}",
            _percent(one.best.saving_right_sized),
        )
        for one in plan.sensitivity
    ]
    columns = ("max_tokens", f"alpha at {threshold:,}", "best threshold", "alpha", "two / one pool", "saving")
    return text_table("Sensitivity to declared max_tokens", columns, rows)


def _percent(share: float) -> str:
    """Return a saving in per cent; zero never prints as minus zero."""
    return f"{round(share, 3) + 0.0:+.1%}"


def _alpha_at(analysis: Analysis, threshold: int) -> str:
    """Return the share in the short pool; a dash if no two pools meet the objective at the threshold."""
    return next((f"{split.alpha:.3f}" for split in analysis.splits if split.threshold == threshold), "-")
