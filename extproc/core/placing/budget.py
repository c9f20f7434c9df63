"""The token budget of a request: prompt tokens plus output tokens for each sequence (the paper's L_total)."""

from dataclasses import dataclass
from math import ceil

from extproc.core.estimator.protocol import Estimate
from extproc.core.facts import RequestFacts

__all__ = ["MAX_BUDGET_TOKENS", "TokenBudget", "token_budget"]

# Beyond any context. Clients may declare outputs of any size, and a number without end is none to count with.
MAX_BUDGET_TOKENS = 100_000_000


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """Tokens a request needs of a pool's context.

    `total` is the likeliest, `bound` the one that policies route on. Both are prompt + output x sequences, and at
    most MAX_BUDGET_TOKENS.
    """

    prompt_tokens: int
    prompt_bound: int
    output_tokens: int
    sequences: int

    @property
    def total(self) -> int:
        """Likeliest total, in tokens."""
        return min(self.prompt_tokens + self.output_tokens * self.sequences, MAX_BUDGET_TOKENS)

    @property
    def bound(self) -> int:
        """Upper bound of the total, in tokens."""
        return min(self.prompt_bound + self.output_tokens * self.sequences, MAX_BUDGET_TOKENS)


def token_budget(facts: RequestFacts, estimate: Estimate) -> TokenBudget:
    """Make the budget of a request.

    Of several prompts the longest counts: each is a sequence of its own. A declared prompt truncation caps the
    prompt (vLLM's truncate_prompt_tokens).
    """
    share = facts.longest_share
    prompt, bound = _whole(estimate.prompt_tokens * share), _whole(estimate.prompt_bound * share)
    cap = facts.truncate_prompt_tokens
    if cap is not None and cap > 0:
        prompt, bound = min(prompt, cap), min(bound, cap)
    return TokenBudget(prompt, bound, estimate.output_tokens, facts.sequences)


def _whole(tokens: float) -> int:
    """Round up, but not for the last bits of a float: 300 x (100 / 300) is 100."""
    return ceil(tokens - 1e-6)
