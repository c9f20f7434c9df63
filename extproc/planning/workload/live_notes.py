"""What a router's histograms do not show, in sentences: notes of a plan that is made from them."""

from bisect import bisect_left

import numpy as np

from extproc.core.errors import shown
from extproc.planning.workload.lengths import Tokens

__all__ = ["MODELS_NAMED", "budget_note", "models_note", "pairing_note", "read_note"]

MODELS_NAMED = 8
BUDGETS_NOTED = (2_048.0, 4_096.0, 8_192.0, 16_384.0)
UNLIKE_NOTED = 0.05  # share of the requests


def models_note(models: tuple[str, ...]) -> str:
    """Say that several models are planned as one; empty for one model."""
    if len(models) <= 1:
        return ""
    names = ", ".join(_named(model) for model in models[:MODELS_NAMED])
    return f" {len(models)} models are planned as if they were one: {names}; --metrics-model selects one."


def _named(model: str) -> str:
    """Return a model's name as it is, or quoted if it is empty or would break the line: clients choose names."""
    return model if model.strip() and model.isprintable() else shown(model)


def pairing_note(totals: dict[float, float], paired: Tokens) -> str:
    """Say how prompts and completions were paired, and how well the pairs fit the counted totals."""
    note = "Histograms do not say which prompt had which completion: they are paired "
    counted = sum(totals.values())
    if counted == 0:
        return note + "at random."
    edges = sorted(edge for edge in totals if np.isfinite(edge))
    tail = edges[min(bisect_left(np.cumsum([totals[e] for e in edges]).tolist(), 0.9 * counted), len(edges) - 1)]
    measured = sum(value for edge, value in totals.items() if edge <= tail) / counted
    return (
        f"{note}to match the counted totals. Of all requests {measured:.1%} took at most {tail:,.0f} tokens; of "
        f"the pairs {np.mean(paired <= tail):.1%}."
    )


def budget_note(budgets: dict[float, float]) -> str:
    """Say which shares of the counted budgets fit usual pools; empty if none was counted."""
    counted = sum(budgets.values())
    if counted == 0:
        return ""
    shares = (
        f"{sum(value for edge, value in budgets.items() if edge <= limit) / counted:.1%} under {limit:,.0f}"
        for limit in BUDGETS_NOTED
    )
    return (
        f" By the budgets on which the router would route: {', '.join(shares)} tokens; alpha is computed from "
        "these budgets if max_tokens are the truth."
    )


def read_note(lengths: float, read: dict[float, float], budgets: dict[float, float]) -> str:
    """Say from how many responses the counted lengths are, and for how many requests they do not stand.

    `read` counts the responses, `budgets` the requests that were estimated; empty if they are not counted.
    """
    responses, estimated = sum(read.values()), sum(budgets.values())
    if responses == 0 or estimated == 0:
        return ""
    note = f" The lengths are from {responses:,.0f} responses, of {estimated:,.0f} requests that were estimated."
    unlike = max(0.0, estimated - lengths)
    if unlike < UNLIKE_NOTED * estimated:
        return note
    return (
        f"{note} For {unlike / estimated:.1%} of these no response like theirs was read since they came, as of "
        "streams whose clients do not ask for usage: their lengths may be others."
    )
