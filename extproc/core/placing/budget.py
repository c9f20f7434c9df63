"""The token budget of a request: prompt plus output tokens of one sequence (the paper's L_total)."""

from math import ceil

import msgspec

from extproc.core.estimator.protocol import Estimate
from extproc.core.facts import RequestFacts

__all__ = ["MAX_BUDGET_TOKENS", "TokenBudget", "token_budget"]

# Beyond any context. Clients may declare outputs of any size, and no sum is to grow with them.
MAX_BUDGET_TOKENS = 100_000_000
# Tokens are rounded up, but not for the last bits of a float: 300 x (100 / 300) is 100.
LAST_BITS = 1e-6


class TokenBudget(msgspec.Struct, frozen=True, gc=False):
    """Tokens a request needs of a pool: of its context, and of its work.

    A context holds one sequence, however many outputs are asked for (vLLM checks each): `total` is the likeliest
    prompt and output of the longest, `bound` the most that it may be. `load_tokens` is the likeliest of all
    sequences together, where `all_prompts_tokens` count once: outputs of one prompt share it. All are at most
    MAX_BUDGET_TOKENS.
    """

    prompt_tokens: int
    prompt_bound: int
    output_tokens: int
    sequences: int
    all_prompts_tokens: int

    @property
    def total(self) -> int:
        """Likeliest total, in tokens."""
        return min(self.prompt_tokens + self.output_tokens, MAX_BUDGET_TOKENS)

    @property
    def bound(self) -> int:
        """Upper bound of the total, in tokens."""
        return min(self.prompt_bound + self.output_tokens, MAX_BUDGET_TOKENS)

    @property
    def load_tokens(self) -> int:
        """Likeliest tokens of all prompts and all outputs, what the servers have to work on."""
        return min(self.all_prompts_tokens + self.all_outputs_tokens, MAX_BUDGET_TOKENS)

    @property
    def all_outputs_tokens(self) -> int:
        """Likeliest tokens of all outputs."""
        return min(self.output_tokens * self.sequences, MAX_BUDGET_TOKENS)


def token_budget(facts: RequestFacts, estimate: Estimate) -> TokenBudget:
    """Make the budget of a request.

    Of several prompts the longest counts: each is a sequence of its own. A declared prompt truncation caps the
    prompt (vLLM's truncate_prompt_tokens).
    """
    share, whole = facts.longest_share, estimate.prompt_tokens
    prompt, bound = ceil(whole * share - LAST_BITS), ceil(estimate.prompt_bound * share - LAST_BITS)
    cap = facts.truncate_prompt_tokens
    if cap is not None and cap > 0:
        prompt, bound, whole = min(prompt, cap), min(bound, cap), min(whole, cap * facts.sequences)
    return TokenBudget(prompt, bound, estimate.output_tokens, facts.sequences, ceil(whole - LAST_BITS))
