"""An upper bound that keeps its promise: adaptive conformal inference (Gibbs and Candes, 2021).

Track q so that P(actual > estimate * exp(q * scale)) = epsilon. After each response

    q <- max(0, q + step * (1[actual > bound] - epsilon))

This needs no assumption about the errors: whatever they do, over n responses the share of misses is within (q_0 +
step) / (step * n) of epsilon, as long as q stays above zero. `scale` is the standard deviation of log(actual /
estimate) believed for this request. It makes the errors of young and old categories, of uniform and mixed traffic
comparable, so one q per model is enough for all text, and the bound is narrow where the model is sure. Because the
scale follows the drift, a constant step of half a standard deviation holds both 1 % and .1 %. Requests with media
have another q: what an image costs may jump from tile to tile, and errors of that shape exceed any usual multiple.

Whether q moves up or down depends only on whether a response's score, log(actual / estimate) / scale, is above it.
So q can be recomputed from any starting value through scores that several routers have seen. That is how replicas
agree on one q (agreeing.py), and why the last scores are kept.

Rejected: mean + k deviations (the paper: 20 % of requests exceed it, and no k is right for heavy tails); quantiles
of a window (needs 10 / epsilon responses, and forgets too slowly when the traffic changes).
"""

from collections import deque
from collections.abc import Iterable
from math import exp

__all__ = ["KEPT_SCORES", "START", "STEP", "AdaptiveBound", "followed"]

STEP = 0.5
# Errors have heavier tails than the normal distribution's 2.3 and 3.1 scales at 1 % and .1 %.
START = 4.0
# With more responses than this between two exchanges, q settles anyway: a move fades within 1 / (STEP epsilon).
KEPT_SCORES = 256


class AdaptiveBound:
    """The multiple q of the scale that an error exceeds with probability epsilon.

    `scored` counts responses. `past` holds, for the last of them, q before the response and the response's score.
    """

    def __init__(self, epsilon: float, q: float = START) -> None:
        self._epsilon = epsilon
        self.q = q
        self.scored = 0
        self.past: deque[tuple[float, float]] = deque(maxlen=KEPT_SCORES)

    def above(self, tokens: float, scale: float, more: float = 0.0) -> float:
        """Return the bound of an estimate, which is never below the estimate; `more` is added to q."""
        logarithm = (self.q + more) * scale
        return tokens * exp(0.0 if logarithm < 0 else MAX_LOG if logarithm > MAX_LOG else logarithm)

    def observe(self, score: float) -> None:
        """Take in a response's score: log(actual / estimate) in multiples of the scale."""
        self.past.append((self.q, score))
        self.scored += 1
        moved = self.q + self.step(score)
        self.q = moved if moved > 0 else 0.0

    def step(self, score: float) -> float:
        """Return by how much a score moves q."""
        return STEP * ((score > self.q) - self._epsilon)

    def load(self, q: float, began: float, scores: Iterable[float], scored: int) -> None:
        """Continue from another bound at `q`, which got there from `began` through these scores."""
        self.q = began
        for score in scores:
            self.observe(score)
        self.q, self.scored = q, scored


def followed(q: float, scores: Iterable[float], epsilon: float) -> float:
    """Return the value that q reaches from `q` through these scores, in order."""
    down, up = STEP * epsilon, STEP * (1 - epsilon)
    for score in scores:
        q = q + up if score > q else max(0.0, q - down)
    return q


MAX_LOG = 20.0  # the physical limits apply long before; exp must not overflow
