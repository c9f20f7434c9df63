"""Which pool a budget goes to: the first, from smallest to largest, that holds it (paper, dispatch steps 2-3).

Spill-over by load (step 4) needs pool metrics and has its place here: `place` would take each pool's load.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from extproc.core.errors import ConfigurationError
from extproc.core.placing.budget import TokenBudget

__all__ = ["Pool", "Pools"]


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool of servers: its name (the header's value) and the largest budget it takes, in tokens."""

    name: str
    max_budget_tokens: int


class Pools:
    """The pools in ascending order; the last one is the default, where everything unsure goes.

    Raises ConfigurationError for fewer than two pools, a name used twice, or limits that do not ascend.
    """

    def __init__(self, pools: Sequence[Pool]) -> None:
        if len(pools) < 2:  # noqa: PLR2004  (a choice needs two)
            raise ConfigurationError(f"pools: {len(pools)} given; at least 2 are needed, smallest first")
        names = [pool.name for pool in pools]
        if len(set(names)) < len(names):
            raise ConfigurationError(f"pools: names {names} must differ from each other")
        limits = [pool.max_budget_tokens for pool in pools]
        if limits[0] <= 0 or any(a >= b for a, b in pairwise(limits)):
            raise ConfigurationError(f"pools: max_budget_tokens {limits} must be positive and ascend")
        self.ascending = tuple(pools)
        self.default = self.ascending[-1]
        self.largest_optional_tokens = self.ascending[-2].max_budget_tokens

    def place(self, budget: TokenBudget) -> Pool:
        """Return the first pool that holds the budget's upper bound; the default when none does."""
        need = budget.bound
        return next((pool for pool in self.ascending if need <= pool.max_budget_tokens), self.default)
