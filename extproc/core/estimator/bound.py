"""An upper bound that keeps its promise: adaptive conformal inference (Gibbs and Candes, 2021).

Track q so that P(actual > estimate * exp(q * scale)) = epsilon. After each response

    q <- max(0, q + step * (1[actual > bound] - epsilon))

No assumption about the errors is needed: whatever they do, over n responses the share of misses is within
(q_0 + step) / (step * n) of epsilon, as long as q stays above zero. `scale` makes the errors of young and old, of
uniform and mixed traffic comparable (it is the standard deviation of the log of actual / estimate, as believed for
this request), so one q per model is enough, and the bound is narrow where the model is sure. Because the scale
carries the drift, a step of half a standard deviation holds both 1 % and .1 %. Its price is noise: q is never
nearer to where it belongs than by a step or so, and bounds are that much wider or narrower from one hour to the
next, and from one router to another. So after STEADY responses of a model steps become smaller, as 1 / n, down to
LEAST_STEP: still enough to follow what changes (Angelopoulos, Barber and Bates, 2024, on decaying steps). A model
that is started anew begins with whole steps, and so does what is loaded: it may be under another epsilon.

What moves q is whether a response's score, log(actual / estimate) / scale, is above it. So q can be followed again
from any start through scores that several routers have seen: that is how replicas agree on one (sharing.py), and
why the last scores are kept.

Rejected: mean + k deviations (the paper: 20 % of requests fall below it, and no k is right for heavy tails);
quantiles of a window (needs 10 / epsilon responses, and forgets nothing in time when the traffic changes).
"""

from collections import deque
from collections.abc import Iterable, Sequence
from math import exp

__all__ = ["KEPT_SCORES", "LEAST_STEP", "START", "STEADY", "STEP", "AdaptiveBound", "followed", "step_after"]

STEP = 0.5
LEAST_STEP = 0.1
STEADY = 2_000  # responses
_LEAST_FROM = STEADY * STEP / LEAST_STEP
# Errors have heavier tails than the normal distribution's 2.3 and 3.1 scales at 1 % and .1 %.
START = 4.0
KEPT_SCORES = 256


class AdaptiveBound:
    """The multiple q of the scale that an error exceeds with probability epsilon.

    `heard` counts responses, of which the last are in `past`: q before each, and its score. `known` counts those
    of all routers that q was moved by.
    """

    def __init__(self, epsilon: float, q: float = START, known: int = 0) -> None:
        self._epsilon = epsilon
        self.q = q
        self.heard, self.known = 0, known
        self.past: deque[tuple[float, float]] = deque(maxlen=KEPT_SCORES)

    def above(self, tokens: float, scale: float, more: float = 0.0) -> float:
        """Return the bound of an estimate, never below it; `more` is added to q."""
        return tokens * exp(min(max(self.q + more, 0.0) * scale, MAX_LOG))

    def observe(self, score: float) -> None:
        """Take in a response: how many scales log(actual / estimate) came to."""
        self.past.append((self.q, score))
        self.q = max(0.0, self.q + self.step(score))
        self.heard += 1
        self.known += 1

    def step(self, score: float) -> float:
        """Return how far a score moves q."""
        return step_after(self.known) * ((score > self.q) - self._epsilon)

    def load(self, q: float, began: float, scores: Sequence[float], heard: int, known: int) -> None:
        """Go on from where another one stood at `q`, after these scores from `began` on."""
        self.q, self.known = began, max(known - len(scores), 0)
        for score in scores:
            self.observe(score)
        self.q, self.heard, self.known = q, heard, known


def step_after(known: int) -> float:
    """Return how far a miss moves q, and the others all together, after so many responses."""
    return STEP if known <= STEADY else STEP * STEADY / known if known < _LEAST_FROM else LEAST_STEP


def followed(q: float, scores: Iterable[float], epsilon: float, known: int) -> float:
    """Return where q gets to through these scores, one after the other, after so many responses before them."""
    for number, score in enumerate(scores, known):
        step = step_after(number)
        q = q + step * (1 - epsilon) if score > q else max(0.0, q - step * epsilon)
    return q


MAX_LOG = 20.0  # the physical limits cut long before; exp must not overflow
