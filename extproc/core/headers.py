"""The headers that a decision sets on a request."""

from dataclasses import dataclass

__all__ = ["HeaderNames"]


@dataclass(frozen=True, slots=True)
class HeaderNames:
    """Names of the headers that a decision sets on the request (lower-case)."""

    pool: str = "x-token-budget-pool"
    estimate: str = "x-token-budget-estimate"
    reason: str = "x-token-budget-reason"
