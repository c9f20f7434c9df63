"""The recommendation in one sentence, from the cost model or simulated fleets: GPUs and money, not instances."""

from collections.abc import Sequence
from math import hypot, isnan

from extproc.planning.model.costs import Costs
from extproc.planning.model.setup import HOURS_PER_YEAR, Setup
from extproc.planning.model.splits import Analysis
from extproc.planning.simulation.as_arrived import ArrivedRun
from extproc.planning.simulation.bracket import TOLERANCE
from extproc.planning.simulation.runner import FleetEstimate

# --apply cannot write it: spill without the pools' addresses, which a plan does not know, is refused.
SPILLS = "; planned with --spill: turn on the router's spill, which needs the endpoints of its pools"

__all__ = ["price_of", "recommend", "recommend_simulated", "recommended"]


def recommend(analysis: Analysis, setup: Setup) -> str:
    """Recommend from the cost model's whole numbers of instances, spares included."""
    best, one, gpus = analysis.best, analysis.right_sized, setup.instance.gpus
    break_even = best.break_even_rate
    if analysis.two_pools_pay:
        saved = (one.instances - best.instances) * gpus
        return (
            f"two pools at {best.threshold:,} tokens: {best.instances * gpus} instead of "
            f"{one.instances * gpus} GPUs{_money(_usd(setup, saved))}{_below(break_even, analysis.rate)} "
            "(cost model; --simulate looks at tuned pools and tails)"
        )
    later = f"at this threshold they pay from {break_even:,.0f} req/s on" if break_even else "they pay at no rate"
    return (
        f"keep one pool of {one.context_tokens:,} tokens: it needs {one.instances * gpus} GPUs, two pools at "
        f"best {best.instances * gpus} (at {best.threshold:,} tokens); {later} (cost model; --simulate looks at "
        "tuned pools and tails)"
    )


def price_of(fleet: FleetEstimate, costs: Costs) -> float:
    """Return the cost by which fleets are compared: USD per year, or GPUs if a price is not known."""
    cost = costs.of(fleet)
    return float(cost.gpus) if cost.usd_per_year is None else cost.usd_per_year


def recommended(fleets: Sequence[FleetEstimate], costs: Costs) -> FleetEstimate | None:
    """Return the fleet to build: the cheapest steady one; several pools only if they save more than the noise.

    Return None if no fleet is known to be steady.
    """
    one, best = _best(fleets, costs)
    if one is None or best is None:
        return one or best
    return best if price_of(one, costs) - price_of(best, costs) > _noise(one, best, costs) else one


def recommend_simulated(
    fleets: Sequence[FleetEstimate], costs: Costs, arrived: ArrivedRun | None = None, *, spill: bool = False
) -> str:
    """Recommend one of the simulated fleets that meet the objective in steady state, spares included. Name the
    classes of the objective that were too rare to judge, and what it misses at the trace's own arrival times.
    With `spill` fleets were simulated with requests that leave overloaded pools: then they need them to.
    """
    chosen = recommended(fleets, costs)
    rare = "" if chosen is None else ", ".join(chosen.not_judged)
    text = _sentence(fleets, costs) + (f"; not judged, too few requests: {rare}" if rare else "")
    if spill and chosen is not None and len(chosen.design.contexts) > 1:
        text += SPILLS
    if arrived is None or not arrived.misses:
        return text
    return f"{text}; too small for the trace's own arrival times{arrived.pace}: {', '.join(arrived.misses)}"


def _sentence(fleets: Sequence[FleetEstimate], costs: Costs) -> str:
    one, best = _best(fleets, costs)
    if one is None and best is None:
        return "no recommendation: no fleet is known to be in steady state; longer runs are needed (--requests)"
    if best is None:
        assert one is not None, "both None was handled above"
        unsteady = any(len(fleet.design.contexts) > 1 for fleet in fleets)
        why = "no two pools are known to be steady" if unsteady else "no two pools are known to meet the objective"
        return f"keep {_described(one, costs)}; {why}"
    if one is None:
        unsteady = any(len(fleet.design.contexts) == 1 for fleet in fleets)
        why = (
            "no single pool is known to be steady" if unsteady else "no single pool is known to meet the objective"
        )
        return f"{_described(best, costs)}; {why}"
    best_gpus, one_gpus = costs.of(best).gpus, costs.of(one).gpus
    if recommended(fleets, costs) is one:
        if price_of(best, costs) >= price_of(one, costs):
            extra = "" if best_gpus > one_gpus else _extra_cost(_difference(best, one, costs))
            other = f"{best.design.name}{_by(best)} need {best_gpus} GPUs at best{extra}"
            return f"keep {_described(one, costs)}; {other} (simulated)"
        return (
            f"keep {_described(one, costs)}; {best.design.name}{_by(best)} need {best_gpus} instead of {one_gpus} "
            "GPUs, no difference beyond the noise of the simulation"
        )
    saved = _money(_difference(one, best, costs))
    first = _first_try(fleets, one, best, costs)
    return f"{_described(best, costs)} instead of {one_gpus}{_by(one)}{saved}{first} (simulated)"


def _best(fleets: Sequence[FleetEstimate], costs: Costs) -> tuple[FleetEstimate | None, FleetEstimate | None]:
    """Return the cheapest steady fleet with one pool, and the cheapest with several."""
    steady = [fleet for fleet in fleets if not fleet.not_steady]
    ones = [f for f in steady if len(f.design.contexts) == 1]
    more = [f for f in steady if len(f.design.contexts) > 1]

    def price(fleet: FleetEstimate) -> float:
        return price_of(fleet, costs)

    return min(ones, key=price, default=None), min(more, key=price, default=None)


def _described(fleet: FleetEstimate, costs: Costs) -> str:
    """Describe a fleet: its shape and GPUs, non-default knobs, and its balancing rule if that was searched."""
    cost, design = costs.of(fleet), fleet.design
    knobs = {
        f"--long-prefill-token-threshold {setup.long_prefill_tokens}"
        for setup in design.setups
        if setup.long_prefill_tokens
    } | {
        f"--data-parallel-size {setup.instance.data_parallel}"
        for setup in design.setups
        if setup.instance.data_parallel > 1
    }
    text = f" with {' and '.join(sorted(knobs))}" if knobs else ""
    if design.balancing is not None:
        needs = f", which needs {design.balancing.needs}" if design.balancing.needs else ""
        text += f"; balanced by {design.balancing}{needs}"
    return f"{design.name} ({cost.shape} GPUs{text}): {cost.gpus} GPUs"


def _by(fleet: FleetEstimate) -> str:
    """Return the balancing rule of a fleet in a comparison, or nothing if rules were not searched."""
    return "" if fleet.design.balancing is None else f" (balanced by {fleet.design.balancing})"


def _first_try(fleets: Sequence[FleetEstimate], one: FleetEstimate, best: FleetEstimate, costs: Costs) -> str:
    """Say which share of the saving a tuned single pool already gives."""
    ones = [fleet for fleet in fleets if len(fleet.design.contexts) == 1]
    usual = max(ones, key=lambda f: price_of(f, costs))
    whole = price_of(usual, costs) - price_of(best, costs)
    if usual is one or whole <= 0:
        return ""
    share = (price_of(usual, costs) - price_of(one, costs)) / whole
    saved_on = f"{usual.design.name}{_by(usual)}"
    return f"; first try {_described(one, costs)}: it gives {share:.0%} of what they save on {saved_on}"


def _noise(one: FleetEstimate, other: FleetEstimate, costs: Costs) -> float:
    """Return the difference that seeds, run lengths and the search may cause, in the unit of `_price`."""
    widths = []
    for each in (one, other):
        per_instance = price_of(each, costs) / max(1, sum(costs.of(each).instances))
        half = 0.0 if isnan(each.half_width) else each.half_width
        widths.append(max(half, TOLERANCE * each.instances) * per_instance)
    return hypot(*widths)


def _difference(one: FleetEstimate, other: FleetEstimate, costs: Costs) -> float | None:
    more, less = costs.of(one).usd_per_year, costs.of(other).usd_per_year
    return None if more is None or less is None else more - less


def _below(break_even: float | None, rate: float) -> str:
    """Say below which rate one pool is better; nothing if rounding to whole instances puts that above `rate`."""
    return f"; below {break_even:,.0f} req/s keep one pool" if break_even and break_even <= rate else ""


def _usd(setup: Setup, gpus: int) -> float | None:
    return None if setup.price_usd_h is None else gpus * setup.price_usd_h * HOURS_PER_YEAR


def _extra_cost(usd: float | None) -> str:
    """Say how much more fewer GPUs cost; they are a different model."""
    return "" if not usd else f", which cost ${usd / 1e3:,.0f}K a year more"


def _money(usd: float | None) -> str:
    return "" if usd is None else f", saves ${usd / 1e3:,.0f}K a year"
