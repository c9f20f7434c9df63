"""The token budget of a request: prompt plus output tokens of one sequence (the paper's L_total)."""

from math import ceil

import msgspec

from extproc.core.estimator.protocol import Estimate
from extproc.core.facts import NO_MEDIA, RequestFacts

__all__ = ["MAX_BUDGET_TOKENS", "TokenBudget", "token_budget"]

# Larger than any context. Clients may declare outputs of any size; this bounds all sums.
MAX_BUDGET_TOKENS = 100_000_000
# Tokens are rounded up, but not because of floating-point error: 300 x (100 / 300) is 100.
LAST_BITS = 1e-6
# One prompt of a list may have so many times as many tokens per byte as the others: Thai has 2.5 times those of
# English.
UNLIKE = 3


class TokenBudget(msgspec.Struct, frozen=True, gc=False):
    """The tokens that a request needs of a pool: of its context, and of its capacity.

    A context holds one sequence, however many outputs are requested (vLLM checks each): `total` is the likeliest
    prompt and output of the longest sequence, `bound` its upper bound. `load_tokens` is the likeliest total of all
    sequences, in which `all_prompts_tokens` count once, because all outputs of a prompt share it. All properties
    are at most MAX_BUDGET_TOKENS.
    """

    prompt_tokens: int
    prompt_bound: int
    output_tokens: int
    sequences: int
    all_prompts_tokens: int

    @property
    def total(self) -> int:
        """Likeliest total, in tokens."""
        total = self.prompt_tokens + self.output_tokens
        return total if total < MAX_BUDGET_TOKENS else MAX_BUDGET_TOKENS

    @property
    def bound(self) -> int:
        """Upper bound of the total, in tokens."""
        bound = self.prompt_bound + self.output_tokens
        return bound if bound < MAX_BUDGET_TOKENS else MAX_BUDGET_TOKENS

    @property
    def load_tokens(self) -> int:
        """Likeliest tokens of all prompts and all outputs: the work for the servers."""
        return min(self.all_prompts_tokens + self.all_outputs_tokens, MAX_BUDGET_TOKENS)

    @property
    def all_outputs_tokens(self) -> int:
        """Likeliest tokens of all outputs."""
        return min(self.output_tokens * self.sequences, MAX_BUDGET_TOKENS)


def token_budget(facts: RequestFacts, estimate: Estimate) -> TokenBudget:
    """Return the budget of a request.

    Of several prompts only the longest counts, since each is a separate sequence. It is the longest in bytes; with
    several languages, another one may have more tokens, and a larger share of them. A declared prompt truncation
    caps the prompt (vLLM's truncate_prompt_tokens), but not with media, which vLLM expands after the cut (its
    issue 57038, fixed in September 2026).
    """
    share, whole = facts.longest_share, estimate.prompt_tokens
    most = share if facts.exact_prompt_tokens is not None else UNLIKE * share / (1 + (UNLIKE - 1) * share)
    prompt, bound = ceil(whole * share - LAST_BITS), ceil(estimate.prompt_bound * most - LAST_BITS)
    cap = facts.truncate_prompt_tokens
    if cap is not None and cap > 0 and facts.media == NO_MEDIA:
        prompt, bound, whole = min(prompt, cap), min(bound, cap), min(whole, cap * facts.sequences)
    return TokenBudget(prompt, bound, estimate.output_tokens, facts.sequences, ceil(whole - LAST_BITS))
