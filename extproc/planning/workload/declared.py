"""Assumptions about the max_tokens that clients declare: it drives the budget, and so the short pool's share.

Traces hold the generated tokens, not the declared ones. Each rule below is one assumption about clients.
"""

from enum import StrEnum

import numpy as np

from extproc.planning.workload.lengths import Lengths, Tokens

__all__ = ["DeclaredRule", "budgets", "declared_tokens"]

UNDECLARED_QUANTILE = 0.99  # without max_tokens the router budgets this quantile of the outputs it has seen
# The router routes on an upper bound of the prompt: with 1 % of bounds exceeded, byte classes overcount by 16 to
# 20 % on average (bench of the estimators).
PROMPT_BOUND_FACTOR = 1.18


class DeclaredRule(StrEnum):
    """An assumption about the max_tokens that clients declare."""

    TRUTH = "truth"  # from the budgets that a router measured, or else exactly the output's length
    HALF_MORE = "1.5x"
    FIXED_1024 = "1024"  # or the output's length if larger, so that no output is cut
    FIXED_4096 = "4096"
    NONE = "none"


def declared_tokens(lengths: Lengths, rule: DeclaredRule) -> Tokens | None:
    """Return the declared max_tokens of each request, int64 of shape (requests,), or None if none is declared."""
    output: Tokens = np.maximum(lengths.output, 1)
    match rule:
        case DeclaredRule.TRUTH if lengths.budget is not None:
            measured: Tokens = np.maximum(output, lengths.budget - _bound(lengths, PROMPT_BOUND_FACTOR))
            return measured
        case DeclaredRule.TRUTH:
            return output
        case DeclaredRule.HALF_MORE:
            return -(-output * 3 // 2)
        case DeclaredRule.NONE:
            return None
        case DeclaredRule.FIXED_1024 | DeclaredRule.FIXED_4096:
            return np.maximum(output, int(rule.value))


def budgets(lengths: Lengths, rule: DeclaredRule, prompt_factor: float = PROMPT_BOUND_FACTOR) -> Tokens:
    """Return the budget that each request is routed on: the prompt's bound plus declared or expected output."""
    if rule is DeclaredRule.TRUTH and lengths.budget is not None:
        return lengths.budget
    declared = declared_tokens(lengths, rule)
    if declared is None:
        declared = np.full(len(lengths), undeclared_output_tokens(lengths), np.int64)
    return _bound(lengths, prompt_factor) + declared


def _bound(lengths: Lengths, factor: float) -> Tokens:
    """Return the bound that a router puts on each prompt, in tokens."""
    bound: Tokens = np.ceil(lengths.prompt * factor).astype(np.int64)
    return bound


def undeclared_output_tokens(lengths: Lengths) -> int:
    """Return the output budget of a request that declares none."""
    return int(np.quantile(lengths.output, UNDECLARED_QUANTILE, method="higher"))
