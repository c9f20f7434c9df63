"""Balancing as the last knob of a design: the best few designs are searched again under each of the other rules.

All thresholds are tried under the first of the requested rules. The FEW best designs of each number of pools are
then searched under the other rules, again with every parameter of each pool, because another rule may need other
instances (both parallelism and balancing by prompt tokens shorten the waits for a prefill). A design takes the
rule with which it is cheapest. The search of single pools is rough, so a design that another rule makes cheaper is
simulated whole under the first rule, too, and takes the other only if it is cheaper then. Trying all thresholds
under all rules was rejected: each rule would take as long as the first, only to find a threshold that is among the
FEW best under another rule alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from extproc.planning.design.choose import Question, Sized, sized_designs
from extproc.planning.design.recommend import price_of
from extproc.planning.model.costs import Costs
from extproc.planning.simulation.balancing import Balancing
from extproc.planning.simulation.cache import ResultCache
from extproc.planning.simulation.options import RunOptions
from extproc.planning.simulation.runner import FleetEstimate, NotMet

__all__ = ["cheapest_outcomes", "cheapest_rules", "sized_under_rules", "with_first_rule"]

FEW = 2

Limits = tuple[int, ...]


def sized_under_rules(
    question: Question,
    limits: Sequence[Limits],
    runs: RunOptions,
    cache: ResultCache,
    progress: Callable[[int, int, str], None],
) -> list[Sized]:
    """Search each design under the question's rule, and the best few (or all given thresholds) under the others.

    The results of the first rule come first. If there are no other rules, the designs name no balancing rule.
    """
    if not runs.also:
        return sized_designs(question, limits, runs.jobs, cache, progress)
    found: list[Sized] = []
    for rule in (question.balancing, *runs.also):

        def report(done: int, of: int, what: str, rule: Balancing = rule) -> None:
            progress(done, of, f"{what} ({rule})")

        these = limits if runs.thresholds or not found else _best_few(limits, found)
        under = sized_designs(replace(question, balancing=rule), these, runs.jobs, cache, report)
        found += [replace(each, balancing=rule) for each in under]
    return found


def cheapest_rules(sized: Sequence[Sized]) -> list[Sized]:
    """Return each design once, under the rule with which it is cheapest; the first rule wins a tie.

    Designs under the first rule come first, so that one of them is taken if two designs cost the same.
    """
    order = list(dict.fromkeys(each.balancing for each in sized))
    best: dict[Limits, Sized] = {}
    for each in sized:
        if each.limits not in best or each.cost < best[each.limits].cost:
            best[each.limits] = each
    return sorted(best.values(), key=lambda each: order.index(each.balancing))


def with_first_rule(chosen: Sequence[Sized], sized: Sequence[Sized]) -> list[Sized]:
    """Return the chosen designs; one under another rule follows itself under the first, if that was found."""
    first = {each.limits: each for each in sized if each.balancing == sized[0].balancing}
    pairs = ([first.get(each.limits, each), each] for each in chosen)
    return [each for pair in pairs for each in dict.fromkeys(pair)]


def cheapest_outcomes(
    outcomes: Sequence[FleetEstimate | NotMet], costs: Costs
) -> tuple[FleetEstimate | NotMet, ...]:
    """Return one outcome for each design: the cheapest steady fleet, and the first of those that cost the same."""
    best: dict[str, FleetEstimate | NotMet] = {}
    for each in outcomes:
        before = best.setdefault(each.design.name, each)
        if _rank(each, costs) < _rank(before, costs):
            best[each.design.name] = each
    return tuple(best.values())


def _rank(outcome: FleetEstimate | NotMet, costs: Costs) -> tuple[bool, bool, float]:
    if isinstance(outcome, NotMet):
        return True, True, 0.0
    return False, bool(outcome.not_steady), price_of(outcome, costs)


def _best_few(limits: Sequence[Limits], found: Sequence[Sized]) -> list[Limits]:
    """Return the FEW cheapest of each number of pools, or all of them if none has met its objective so far."""
    few: list[Limits] = []
    ranked = sorted(cheapest_rules(found), key=lambda each: each.cost)
    for pools in sorted({len(each) for each in limits}):
        good = [each.limits for each in ranked if len(each.limits) == pools]
        few += good[:FEW] or [each for each in limits if len(each) == pools]
    return few
