"""The choice of a pool for a budget: the smallest one that takes it (paper, dispatch steps 2-3).

A pool has the paper's two limits. The likeliest total decides which pool a request belongs to (B_short), the upper
bound whether it certainly fits the servers' context (C_max). The room between the limits absorbs errors of the
estimate: an under-counted prompt still fits, and a prompt near the threshold makes no detour because of its bound.
If both limits are equal, the bound alone decides, since it is never below the likeliest total.

Only pools that serve the request's model are considered (fleet.py). spill.py then decides whether the request
stays there.
"""

from collections.abc import Iterator, Sequence
from math import ceil

from extproc.core.errors import ConfigurationError, shown
from extproc.core.estimator.protocol import Estimate
from extproc.core.facts import RequestFacts
from extproc.core.placing.budget import TokenBudget
from extproc.core.placing.fleet import Fleet, Serving
from extproc.core.placing.pool import Pool, Reason

__all__ = ["Pool", "Pools", "Reason"]


class Pools:
    """The pools in ascending order; the last one is the default, which takes every request in doubt.

    `fleet` contains only what the configuration says. `stored_by_default` says that the servers store responses
    unless a request says otherwise (OpenAI's do; vLLM's do not unless configured to).

    Raises ConfigurationError for fewer than two pools, a duplicate name or cluster, limits that do not ascend, or
    a pool whose budget limit exceeds its context.
    """

    def __init__(self, pools: Sequence[Pool], *, stored_by_default: bool = False) -> None:
        if faults := list(_faults(pools)):
            raise ConfigurationError(*faults)
        self.ascending = tuple(pools)
        self._stored_by_default = stored_by_default
        self.default = self.ascending[-1]
        self.largest_optional_tokens = self.ascending[-2].max_budget_tokens
        self.fleet = Fleet(Serving(self.ascending))

    def place(self, facts: RequestFacts, budget: TokenBudget, fleet: Fleet | None = None) -> tuple[Pool, Reason]:
        """Return the first pool that serves the model and whose two limits hold the budget, and the reason.

        If there is none, it is the model's default pool.
        """
        ladder = (fleet or self.fleet).serving.ladder(facts.model)
        if facts.unseen_history:
            return ladder.default.pool, Reason.UNSEEN_HISTORY
        if facts.stored or (facts.stored is None and self._stored_by_default):
            return ladder.default.pool, Reason.STORED
        total, bound = budget.total, budget.bound
        for rung in ladder.smaller:
            if total <= rung.budget_tokens and bound <= rung.context_tokens:
                return rung.pool, Reason.FITS
        return ladder.default.pool, ladder.reason

    def in_doubt(
        self, facts: RequestFacts, estimate: Estimate, budget: TokenBudget, fleet: Fleet | None = None
    ) -> bool:
        """Return whether a request may fit a smaller pool than the one that `place` chooses.

        It assumes that the estimate may be too high by the same factor as it may be too low.
        """
        if facts.unseen_history or facts.stored or (facts.stored is None and self._stored_by_default):
            return False
        total, bound = budget.total, budget.bound
        least = estimate.prompt_tokens * estimate.prompt_tokens / max(estimate.prompt_bound, 1.0)
        lowest = ceil(least * facts.longest_share) + budget.output_tokens
        for rung in (fleet or self.fleet).serving.ladder(facts.model).smaller:
            if total <= rung.budget_tokens and bound <= rung.context_tokens:
                return False
            if lowest <= rung.budget_tokens:
                return True
        return False


def _faults(pools: Sequence[Pool]) -> Iterator[str]:
    names = [pool.name for pool in pools]
    limits = [pool.max_budget_tokens for pool in pools]
    if len(pools) < 2:  # noqa: PLR2004  (a choice needs two)
        yield f"pools: {len(pools)} given; at least 2 are needed, smallest first"
    if len(set(names)) < len(names):
        yield f"pools: names {shown(names)} must differ from each other"
    if any(limit <= 0 for limit in limits) or not all(map(_ascend, pools, pools[1:])):
        yield f"pools: max_budget_tokens {shown(limits)} must be positive and ascend"
    for index, pool in enumerate(pools):
        if pool.context_tokens < pool.max_budget_tokens:
            yield (
                f"pools[{index}].max_model_len: {pool.max_model_len} given; at least the pool's "
                f"max_budget_tokens, {pool.max_budget_tokens}, is needed"
            )
    clusters = [cluster for pool in pools for cluster in dict.fromkeys(pool.clusters)]
    if twice := sorted({cluster for cluster in clusters if clusters.count(cluster) > 1}):
        yield f"pools: clusters {shown(twice)} are given to several pools; each may belong to only one"
    contexts = [pool.context_tokens for pool in pools]
    if contexts != sorted(contexts):
        yield f"pools: max_model_len {shown(contexts)} must not descend"


def _ascend(one: Pool, next_one: Pool) -> bool:
    """Return whether two neighbours are in order; pools whose models (may) differ can be equally large."""
    if one.max_budget_tokens == next_one.max_budget_tokens:
        if one.models and next_one.models:
            return one.models != next_one.models
        return all(pool.models or pool.endpoints for pool in (one, next_one))
    return one.max_budget_tokens < next_one.max_budget_tokens
