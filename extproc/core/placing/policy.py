"""Which pool a budget goes to: the first, from smallest to largest, that takes it (paper, dispatch steps 2-3).

A pool has the paper's two limits. Its likeliest total decides where a request belongs (B_short), its upper bound
whether the servers hold it for certain (C_max). The room between them is what an estimate may be wrong by: a
prompt that was under-counted still fits, and one near the threshold makes no detour for its bound. With both
limits equal the bound alone decides, since it is never below the likeliest total.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Final

from msgspec import Meta

from extproc.core.errors import ConfigurationError, shown
from extproc.core.facts import RequestFacts
from extproc.core.placing.budget import TokenBudget

__all__ = ["NO_LOADS", "Loads", "Pool", "Pools", "Reason"]

# What goes into a header value and a metric label without quoting.
_NAMES = "letters, digits, dots, dashes and underscores, at most 63, the first a letter or digit"


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool of servers. They stand in ascending order; the last is the default, where what is unsure goes."""

    name: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z", extra={"allowed": _NAMES})]
    """The value of the pool header, and a metric's label."""
    max_budget_tokens: Annotated[int, Meta(ge=1)]
    """The largest likeliest token budget that is sent here; they ascend from pool to pool."""
    max_model_len: Annotated[int, Meta(ge=1)] | None = None
    """What servers hold of one sequence: vLLM's --max-model-len, not below max_budget_tokens."""

    @property
    def context_tokens(self) -> int:
        """What the servers hold of one sequence, in tokens."""
        return self.max_budget_tokens if self.max_model_len is None else self.max_model_len


@dataclass(frozen=True, slots=True)
class Loads:
    """How loaded the pools are, as one value that a decision reads. Nothing measures it yet: it is empty."""


NO_LOADS: Final = Loads()


class Reason(StrEnum):
    """Why a pool was chosen; a metric label and the value of the reason header."""

    FITS = "fits"
    TOO_LONG = "too_long"  # the budget fits no smaller pool
    UNSEEN_HISTORY = "unseen_history"  # or parts that cannot be measured, such as files
    STORED = "stored"  # the response is kept where it was given: later requests have to find it
    NOT_UNDERSTOOD = "not_understood"
    EARLY = "early"  # so many bytes that no smaller pool could hold them; decided before the end
    CUT_OFF = "cut_off"  # the gateway gave only the first part of the body
    DEADLINE = "deadline"  # the body was not there in time
    SHED = "shed"  # more requests came than the router could decide in time


class Pools:
    """The pools in ascending order; the last one is the default, where everything unsure goes.

    `stored_by_default` says that the servers keep responses unless a request says otherwise (OpenAI's do; vLLM's
    keep none unless they are told to).

    Raises ConfigurationError for fewer than two pools, a name used twice, limits that do not ascend, or a pool
    that is to take more than it holds.
    """

    def __init__(self, pools: Sequence[Pool], *, stored_by_default: bool = False) -> None:
        if faults := list(_faults(pools)):
            raise ConfigurationError(*faults)
        self.ascending = tuple(pools)
        self._stored_by_default = stored_by_default
        self.default = self.ascending[-1]
        self.largest_optional_tokens = self.ascending[-2].max_budget_tokens

    def place(self, facts: RequestFacts, budget: TokenBudget, loads: Loads = NO_LOADS) -> tuple[Pool, Reason]:  # noqa: ARG002  (read by the spill-over to come)
        """Return the first pool within whose two limits the budget is, the default when none is; and why."""
        if facts.unseen_history:
            return self.default, Reason.UNSEEN_HISTORY
        if facts.stored or (facts.stored is None and self._stored_by_default):
            return self.default, Reason.STORED
        total, bound = budget.total, budget.bound
        for pool in self.ascending[:-1]:
            if total <= pool.max_budget_tokens and bound <= pool.context_tokens:
                return pool, Reason.FITS
        return self.default, Reason.TOO_LONG


def _faults(pools: Sequence[Pool]) -> Iterator[str]:
    names = [pool.name for pool in pools]
    limits = [pool.max_budget_tokens for pool in pools]
    if len(pools) < 2:  # noqa: PLR2004  (a choice needs two)
        yield f"pools: {len(pools)} given; at least 2 are needed, smallest first"
    if len(set(names)) < len(names):
        yield f"pools: names {shown(names)} must differ from each other"
    if any(limit <= 0 for limit in limits) or any(a >= b for a, b in pairwise(limits)):
        yield f"pools: max_budget_tokens {shown(limits)} must be positive and ascend"
    for index, pool in enumerate(pools):
        if pool.context_tokens < pool.max_budget_tokens:
            yield (
                f"pools[{index}].max_model_len: {pool.max_model_len} given; at least the pool's "
                f"max_budget_tokens, {pool.max_budget_tokens}, is needed"
            )
    contexts = [pool.context_tokens for pool in pools]
    if contexts != sorted(contexts):
        yield f"pools: max_model_len {shown(contexts)} must not descend"
