"""Fair shares of the learning budget for the strata.

The problem. A budget that admits whatever it can afford admits what is cheap. At 100 requests per second, one
application was learned from at 11 % of its requests, and the one that declares 8,192 output tokens at .9 %: that
its prompts had begun to take 30 % more tokens was neither learned nor counted as misses (docs/estimator.md).

The idea. Each of the n strata that recently asked is entitled to 1/n of what is spent. A stratum that had less is
behind and may use all of the budget; the others may use its upper half (learning_budget.py). So cheap strata still
get what no other needs, and a stratum that returns finds half a burst: max-min fairness without a queue. Spending
decays by half in each period. It is cleared for a stratum whose bound was missed, so that the router samples
changes first. The shares belong to strata, not to clients, because strata are few and clients cannot invent new
ones. Rejected: a bucket per stratum, because what is left in one would be unavailable to the others.
"""

from collections.abc import Hashable

__all__ = ["Shares"]

PERIOD_S = 10.0


class Shares:
    """The recent spending of each stratum, in messages."""

    def __init__(self) -> None:
        self._until_s: float | None = None
        self._spent: dict[Hashable, float] = {}
        self._asking: set[Hashable] = set()
        self._asked_before: set[Hashable] = set()

    def is_behind(self, stratum: Hashable, now_s: float) -> bool:
        """Record that a stratum asks; return whether it has had no more than its share."""
        if self._until_s is None or now_s >= self._until_s:
            self._until_s = now_s + PERIOD_S
            self._asking, self._asked_before = set(), self._asking
            self._spent = {each: spent / 2 for each, spent in self._spent.items()}
        self._asking.add(stratum)
        asking = max(len(self._asking), len(self._asked_before))
        return self._spent.get(stratum, 0.0) * asking <= sum(self._spent.values())

    def spend(self, stratum: Hashable, messages: float) -> None:
        """Charge a response's messages to its stratum; a negative number is a refund."""
        spent = self._spent.get(stratum, 0.0) + messages
        self._spent[stratum] = spent if spent > 0 else 0.0

    def forget(self, stratum: Hashable) -> None:
        """Clear a stratum's spending, which puts it behind."""
        self._spent.pop(stratum, None)
