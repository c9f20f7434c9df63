"""Who has had less of the learning than its share, and for how many requests what is seen of a stratum stands.

The problem. A budget that takes what it can pay for takes what is cheap. At 100 requests a second one application
was learned from at 11 % of its requests, and the one that declares 8,192 output tokens at .9 %: that its prompts
had begun to cost 30 % more was neither learned nor counted as a miss (docs/estimator.md).

The idea. Of n strata that asked lately each has a claim to a part in n of what is spent. One that had less is
behind, and may draw on all of the budget; the others on its upper half (learning_budget.py). So what is cheap
still takes what nobody else wants, and who comes back finds half a burst to begin with: max-min fairness, without
a queue. What was spent fades by half in each period, and is forgotten of a stratum of which a bound was missed: so
what has changed is heard of first. It is strata that have shares, not clients: they are few, and nobody can make
up one more. Rejected: a bucket for each stratum, since what is left in one is nobody's.
"""

from collections.abc import Hashable

__all__ = ["Shares"]

PERIOD_S = 10.0


class Shares:
    """What each stratum has taken of late, in messages."""

    def __init__(self) -> None:
        self._until_s: float | None = None
        self._spent: dict[Hashable, float] = {}
        self._asking: set[Hashable] = set()
        self._asked_before: set[Hashable] = set()

    def is_behind(self, stratum: Hashable, now_s: float) -> bool:
        """Take in that a stratum asks; tell whether it has had no more than its share."""
        if self._until_s is None or now_s >= self._until_s:
            self._until_s = now_s + PERIOD_S
            self._asking, self._asked_before = set(), self._asking
            self._spent = {each: spent / 2 for each, spent in self._spent.items()}
        self._asking.add(stratum)
        asking = max(len(self._asking), len(self._asked_before))
        return self._spent.get(stratum, 0.0) * asking <= sum(self._spent.values())

    def spend(self, stratum: Hashable, messages: float) -> None:
        """Take in what a response of a stratum costs; less than nothing is paid back."""
        self._spent[stratum] = max(self._spent.get(stratum, 0.0) + messages, 0.0)

    def forget(self, stratum: Hashable) -> None:
        """Have a stratum be behind, whatever it has taken."""
        self._spent.pop(stratum, None)
