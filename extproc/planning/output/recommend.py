"""The recommendation in one sentence, from the cost model or from simulated fleets."""

from collections.abc import Sequence
from math import hypot, isnan

from extproc.planning.model.analytic import Analysis
from extproc.planning.model.setup import Setup
from extproc.planning.simulation.runner import FleetEstimate
from extproc.planning.simulation.search import TOLERANCE

__all__ = ["recommend", "recommend_simulated"]


def recommend(analysis: Analysis, setup: Setup) -> str:
    """Recommend by the cost model's whole instances, spares included."""
    best, one = analysis.best, analysis.right_sized
    break_even = best.break_even_rate
    if analysis.two_pools_pay:
        money = _money(setup, one.instances - best.instances)
        return (
            f"two pools at {best.threshold:,} tokens: {best.instances} instead of {one.instances} "
            f"instances{money}{_below(break_even, analysis.rate)}"
        )
    later = f"at this threshold they pay from {break_even:,.0f} req/s on" if break_even else "they pay at no rate"
    return (
        f"keep one pool of {one.context_tokens:,} tokens: it needs {one.instances} instances, two pools at "
        f"best {best.instances} (at {best.threshold:,} tokens); {later}"
    )


def recommend_simulated(fleets: Sequence[FleetEstimate], analysis: Analysis, setup: Setup) -> str:
    """Recommend from the simulated fleets that meet the objective; spares are added as in the cost model."""
    ones = [f for f in fleets if len(f.design.contexts) == 1]
    twos = [f for f in fleets if len(f.design.contexts) > 1]
    best = min(twos, key=lambda f: f.instances, default=None)
    one = ones[-1] if ones else None
    if best is None:
        assert one is not None, "there are fleets"
        size, context = one.typical.total + setup.spare, one.design.contexts[0]
        return f"keep one pool of {context:,} tokens: {size} instances; no two pools meet the objective"
    threshold, best_size = best.design.contexts[0], best.typical.total + 2 * setup.spare
    if one is None:
        return f"two pools at {threshold:,} tokens: {best_size} instances; no single pool meets the objective"
    keep, one_size = f"keep one pool of {one.design.contexts[0]:,} tokens", one.typical.total + setup.spare
    if best_size >= one_size:
        return (
            f"{keep}: it needs {one_size} instances, two pools at best {best_size} (at {threshold:,} tokens; "
            "simulated)"
        )
    if one.instances - best.instances <= _noise(one, best):
        return (
            f"{keep}: two pools at {threshold:,} tokens need {best_size} instead of {one_size} instances, no "
            "difference beyond the noise of the simulation"
        )
    money = _money(setup, one_size - best_size)
    chosen = next((s for s in analysis.splits if s.threshold == threshold), analysis.best)
    below = _below(chosen.break_even_rate, analysis.rate)
    return (
        f"two pools at {threshold:,} tokens: {best_size} instead of {one_size} instances{money}{below} (simulated)"
    )


def _noise(one: FleetEstimate, other: FleetEstimate) -> float:
    """Return the difference, in instances, that seeds (where there are several) or the search itself may make."""
    widths = hypot(*(0.0 if isnan(each.half_width) else each.half_width for each in (one, other)))
    return max(widths, TOLERANCE * one.instances)


def _below(break_even: float | None, rate: float) -> str:
    """Say from which rate on two pools pay; nothing where a whole number of instances puts that above the rate."""
    return f"; below {break_even:,.0f} req/s keep one pool" if break_even and break_even <= rate else ""


def _money(setup: Setup, instances: int) -> str:
    usd = setup.usd_per_year(instances)
    return "" if usd is None else f", saves ${usd / 1e3:,.0f}K a year"
