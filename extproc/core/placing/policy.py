"""Which pool a budget goes to: the first, from smallest to largest, that holds it (paper, dispatch steps 2-3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Final

from extproc.core.errors import ConfigurationError
from extproc.core.facts import RequestFacts
from extproc.core.placing.budget import TokenBudget

__all__ = ["NO_LOADS", "Loads", "Pool", "Pools", "Reason"]


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool of servers: its name (the header's value) and the largest budget it takes, in tokens."""

    name: str
    max_budget_tokens: int


@dataclass(frozen=True, slots=True)
class Loads:
    """How loaded the pools are, as one value that a decision reads. Nothing measures it yet: it is empty."""


NO_LOADS: Final = Loads()


class Reason(StrEnum):
    """Why a pool was chosen; a metric label and the value of the reason header."""

    FITS = "fits"
    TOO_LONG = "too_long"  # the budget fits no smaller pool
    UNSEEN_HISTORY = "unseen_history"  # or parts that cannot be measured, such as files
    NOT_UNDERSTOOD = "not_understood"
    EARLY = "early"  # so many bytes that no smaller pool could hold them; decided before the end
    CUT_OFF = "cut_off"  # the gateway gave only the first part of the body
    DEADLINE = "deadline"  # the body was not there in time


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

    def place(self, facts: RequestFacts, budget: TokenBudget, loads: Loads = NO_LOADS) -> tuple[Pool, Reason]:  # noqa: ARG002  (read by the spill-over to come)
        """Return the first pool that holds the budget's upper bound, the default when none does; and why."""
        if facts.unseen_history:
            return self.default, Reason.UNSEEN_HISTORY
        need = budget.bound
        for pool in self.ascending[:-1]:
            if need <= pool.max_budget_tokens:
                return pool, Reason.FITS
        return self.default, Reason.TOO_LONG
