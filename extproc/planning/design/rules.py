"""Balancing as the last knob of a design: the best few designs are searched again under each other rule.

The first rule that was asked for leads: all thresholds are looked at under it, and its best FEW of each number of
pools under the others, each pool with all that is searched in it, because another rule may want other instances
(waits for a prefill are what parallelism shortens, and what balancing by prompt tokens avoids). A rule is kept
where the design is cheaper with it. All thresholds under all rules was rejected: each rule would take as long as
the first. What it would find beside is a threshold that is among the best FEW under another rule only.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from extproc.planning.design.choose import Question, Sized, sized_designs
from extproc.planning.simulation.balancing import Balancing
from extproc.planning.simulation.cache import ResultCache
from extproc.planning.simulation.options import RunOptions

__all__ = ["cheapest_rules", "sized_under_rules"]

FEW = 2

Limits = tuple[int, ...]


def sized_under_rules(
    question: Question,
    limits: Sequence[Limits],
    runs: RunOptions,
    cache: ResultCache,
    progress: Callable[[int, int, str], None],
) -> list[Sized]:
    """Search each design under the question's rule, and under each of the runs' others the best few, or all where
    thresholds are given.

    The first rule's come first. Where there are no others the designs have no balancing of their own.
    """
    if not runs.also:
        return sized_designs(question, limits, runs.jobs, cache, progress)
    found: list[Sized] = []
    for rule in (question.balancing, *runs.also):

        def told(done: int, of: int, what: str, rule: Balancing = rule) -> None:
            progress(done, of, f"{what} ({rule})")

        these = limits if runs.thresholds or not found else _best_few(limits, found)
        under = sized_designs(replace(question, balancing=rule), these, runs.jobs, cache, told)
        found += [replace(each, balancing=rule) for each in under]
    return found


def cheapest_rules(sized: Sequence[Sized]) -> list[Sized]:
    """Return each design once, under the rule with which it is cheapest; of equals under the one named first.

    Those under the rule named first come first, so that of two designs that cost the same that one is taken.
    """
    order = list(dict.fromkeys(each.balancing for each in sized))
    best: dict[Limits, Sized] = {}
    for each in sized:
        if each.limits not in best or each.cost < best[each.limits].cost:
            best[each.limits] = each
    return sorted(best.values(), key=lambda each: order.index(each.balancing))


def _best_few(limits: Sequence[Limits], found: Sequence[Sized]) -> list[Limits]:
    """Return the cheapest few of each number of pools; all of them where none has met its objective so far."""
    few: list[Limits] = []
    ranked = sorted(cheapest_rules(found), key=lambda each: each.cost)
    for pools in sorted({len(each) for each in limits}):
        good = [each.limits for each in ranked if len(each.limits) == pools]
        few += good[:FEW] or [each for each in limits if len(each) == pools]
    return few
