"""An upper bound that keeps its promise: adaptive conformal inference (Gibbs and Candes, 2021).

Track q so that P(actual > estimate * exp(q * scale)) = epsilon. After each response

    q <- max(0, q + step * (1[actual > bound] - epsilon))

No assumption about the errors is needed: whatever they do, over n responses the share of misses is within
(q_0 + step) / (step * n) of epsilon, as long as q stays above zero. `scale` makes the errors of young and old, of
uniform and mixed traffic comparable (it is the standard deviation of the log of actual / estimate, as believed for
this request), so one q per model is enough, and the bound is narrow where the model is sure. Because the scale
carries the drift, a constant step of half a standard deviation holds both 1 % and .1 %.

Rejected: mean + k deviations (the paper: 20 % of requests fall below it, and no k is right for heavy tails);
quantiles of a window (needs 10 / epsilon responses, and forgets nothing in time when the traffic changes).
"""

from math import exp

__all__ = ["START", "STEP", "AdaptiveBound"]

STEP = 0.5
# Errors have heavier tails than the normal distribution's 2.3 and 3.1 scales at 1 % and .1 %.
START = 4.0


class AdaptiveBound:
    """The multiple q of the scale that an error exceeds with probability epsilon."""

    def __init__(self, epsilon: float, q: float = START) -> None:
        self._epsilon = epsilon
        self.q = q

    def above(self, tokens: float, scale: float) -> float:
        """Return the bound of an estimate, never below it."""
        return tokens * exp(min(self.q * scale, MAX_LOG))

    def observe(self, *, missed: bool) -> None:
        """Take in whether the actual count was above the bound."""
        self.q = max(0.0, self.q + STEP * (missed - self._epsilon))


MAX_LOG = 20.0  # the physical limits cut long before; exp must not overflow
