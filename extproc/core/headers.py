"""The headers that a decision sets on a request."""

from dataclasses import dataclass

__all__ = ["HeaderNames"]


@dataclass(frozen=True, slots=True)
class HeaderNames:
    """Names of the headers that a decision sets on the request: lower-case, and all different.

    Names that frame the message, carry a credential, or belong to Envoy, another proxy or a cloud are rejected.
    """

    pool: str = "x-token-budget-pool"
    """The pool's name, set for every pool except the last: the header that routes match on."""
    estimate: str = "x-token-budget-estimate"
    """The upper bound of the token budget, in tokens."""
    reason: str = "x-token-budget-reason"
    """Why the pool was chosen."""
