"""Recursive least squares on relative error, in information form.

Given features x (counts) and what the request really cost, k tokens, the prices w minimise

    sum over responses of  lambda^age c (1 - w.x / k)^2   +   (w - m)^T R (w - m)

so a request of 100 tokens teaches as much as one of 10,000; c <= 1 is how far the response is believed. The second
term is the prior: prices m with covariance C, and R = s^2 C^-1, where s is the relative error that a well-trained
model leaves, .05 if prices are of bytes. With z = x / k,

    A = sum lambda^age c z z^T,   b = sum lambda^age c z,   w = (A + R)^-1 (b + R m).

A and b are sums: those of several replicas add up, in any order, to what one router would have seen. The prior is
not part of them and does not fade: the price of a kind of text that is not seen for months slowly returns to it.

Solving takes a hundred times as long as an estimate. So P = (A + R)^-1 and w follow each response by the rank-one
update of Sherman and Morrison, with v = P z and g = c / (1 + c z.v),

    w <- w + g (1 - z.w) v,   P <- P - g v v^T,

and are solved for from the sums after every SOLVE_AFTER responses. The only difference from the exact solution is
that between two solutions, what was learned before does not fade; so there are fewer responses between them if
forgetting is fast. P itself is not modified: the rows sqrt(g) v since the last solution are kept as V, and P z =
P0 z - V^T (V z) takes a quarter of the time that writing a matrix of this size would. Rejected: single precision
for both, which saves next to nothing. Where the prior leaves much open, as for a request with many images, P0 z
and V^T (V z) differ only in digits that it does not have, and the prices diverge. Rejected, with figures in
docs/estimator.md: no update for responses that say nothing new.

Prior art. NLMS costs less per response, but converges very slowly on features as correlated as those of bytes. The
covariance form of RLS alone (Sherman-Morrison on P without ever solving) loses symmetry and positive definiteness
over millions of updates, and cannot be merged. A only ever receives sums of outer products, symmetric to the bit,
and decays, so its entries stay below max(z)^2 / (1 - lambda), and R keeps A + R well away from singular.

`leverage` is what the model does not know about x: s^2 x^T (A + R)^-1 x is the variance of the estimate that comes
from the prices. Relative to the square of the estimate, it is large for a script never seen, and small for
familiar text.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import isfinite, sqrt

import numpy as np
import numpy.typing as npt

from extproc.core.estimator.features import Features
from extproc.core.estimator.inverse import inverse_of
from extproc.core.estimator.prices import Prior

__all__ = ["NOISE", "RelativeLeastSquares", "Sums"]

Matrix = npt.NDArray[np.float64]

NOISE = 0.05
# Responses between two solutions, and how much of the old ones may fade during that time.
SOLVE_AFTER = 64
MAX_FADED = 0.032
FIRST_STEPS = 4
MOST_PRICE = 1e9  # in tokens; only sums from elsewhere, such as no responses make, lead to more, or to no number


@dataclass(frozen=True, slots=True)
class Sums:
    """A, shape (d, d), and b, shape (d,): all that a model has learned about prices."""

    a: Matrix
    b: Features


@dataclass(frozen=True, slots=True)
class _Start:
    """The starting values that all models with the same prior share: R, R m, R^-1, and empty sums."""

    ridge: Matrix
    pull: Features
    inverse: Matrix
    nothing: Matrix


@lru_cache(maxsize=8)
def _start(prior: Prior, variance: float) -> _Start:
    ridge = variance * prior.precision
    inverse = prior.covariance / variance
    return _Start(ridge, ridge @ prior.mean, inverse, np.zeros_like(ridge))


class RelativeLeastSquares:
    """Prices of the features for one served model.

    `refused` counts responses that would have made the system ill-conditioned. `weights` are tokens per unit of
    each feature. `noise` is the relative error that well-trained prices leave.
    """

    def __init__(self, prior: Prior, forgetting: float, noise: float = NOISE) -> None:
        size = prior.mean.size
        self._variance = noise * noise
        self._forgetting = forgetting
        self._solve_after = max(1, min(SOLVE_AFTER, int(MAX_FADED / max(1 - forgetting, 1e-9))))
        self._start = start = _start(prior, self._variance)
        # The arrays of `start` are replaced, not written to: names come from clients, most models learn little.
        self._a, self._b = start.nothing, np.zeros(size)
        self._inverse = start.inverse  # P0
        self._steps = np.empty((0, size))  # V; only the first `_unsolved` rows are in use
        self._unsolved = 0
        self._waiting: list[tuple[Features, float]] = []  # z and c of responses not yet in the sums
        # x of the last `leverage`, with P0 x, V x (None if V is empty) and x.P x, while they still hold.
        self._looked: tuple[Features, Features, Features | None, float] | None = None
        self.weights: Features = prior.mean
        self.responses = 0
        self.refused = 0
        # The faded number of responses in the sums, and the number of responses at that time.
        self._weighed = 0.0, 0

    @property
    def weight(self) -> float:
        """The faded number of responses in the sums."""
        weight, at = self._weighed
        since = self.responses - at
        kept = self._forgetting**since
        return kept * weight + (since if kept == 1 else (1 - kept) / (1 - self._forgetting))

    @property
    def sums(self) -> Sums:
        """A copy of what is learned."""
        self._sum_up()
        return Sums(self._a.copy(), self._b.copy())

    def load(self, sums: Sums, responses: int, weight: float, refused: int = 0) -> None:
        """Continue from sums that this or other routers have made; they must be finite."""
        self._a, self._b, self.responses, self.refused = sums.a.copy(), sums.b.copy(), responses, refused
        self._weighed = weight, responses
        self._waiting.clear()
        self._solve()

    def shift(self, sums: Sums, responses: int, weight: float, since: int) -> None:
        """Add what others learned from so many responses; its age is that of response number `since`."""
        self._sum_up()
        kept = self._forgetting ** (self.responses - since)
        self._a = self._a + kept * sums.a
        self._b += kept * sums.b
        weight = max(self.weight + kept * weight, 0.0)
        self.responses = max(self.responses + responses, 0)
        self._weighed = weight, self.responses
        self._solve()

    def predict(self, x: Features) -> float:
        """Return w.x in tokens; can be any number if x is unlike everything seen so far."""
        return float(self.weights.dot(x))  # @ takes twice as long on arrays this small

    def leverage(self, x: Features) -> float:
        """Return the variance of w.x due to the prices, in tokens^2; for x / estimate, the relative variance.

        What is computed for x is kept for `learn`, which usually follows with the same array.
        """
        of_inverse = self._inverse.dot(x)
        unknown, of_steps = float(x.dot(of_inverse)), None
        if self._unsolved:
            of_steps = self._steps[: self._unsolved].dot(x)
            unknown -= float(of_steps.dot(of_steps))
        unknown = unknown if unknown > 0 else 0.0
        self._looked = x, of_inverse, of_steps, unknown
        return self._variance * unknown

    def learn(self, x: Features, tokens: float, weight: float = 1.0, share: float = 1.0) -> bool:
        """Take in one response: x cost so many tokens (> 0); `weight` (0 to 1) is how far it is believed.

        It changes the estimate of x by `share` (0 to 1) of what it otherwise would. A small weight alone does not
        limit the effect of a text unlike all others, since nothing else is known about it. Return whether the
        numbers allowed it.
        """
        z = x / tokens
        if not isfinite(z.dot(z)):  # a quarter of the time of np.isfinite(z).all()
            self.refused += 1
            return False
        of_x, unknown_of_x = self._spread(x)
        spread, unknown = of_x / tokens, unknown_of_x / (tokens * tokens)  # P z, z.P z
        weight = weight * share / (1 + weight * (1 - share) * unknown)
        gain = weight / (1 + weight * unknown)
        self.weights = self.weights + (gain * (1 - float(z.dot(self.weights)))) * spread
        if self._unsolved == len(self._steps):
            self._make_room()
        np.multiply(spread, sqrt(gain), out=self._steps[self._unsolved])
        self._looked = None
        self._waiting.append((z, weight))
        self.responses += 1
        self._unsolved += 1
        return self._solve() if self._unsolved == self._solve_after else True

    def _spread(self, x: Features) -> tuple[Features, float]:
        """Return P x, and x.P x."""
        if self._looked is None or self._looked[0] is not x:
            self.leverage(x)
        assert self._looked is not None, "leverage has just set it"
        _, of_inverse, of_steps, unknown = self._looked
        if of_steps is not None:
            of_inverse = of_inverse - of_steps.dot(self._steps[: self._unsolved])
        return of_inverse, unknown

    def _make_room(self) -> None:
        """Make room for more steps: twice as many, up to the number between two solutions."""
        count, size = self._steps.shape
        steps = np.empty((min(max(2 * count, FIRST_STEPS), self._solve_after), size))
        steps[:count] = self._steps
        self._steps = steps

    def _sum_up(self) -> None:
        """Add the waiting responses to the sums, each faded as if added on arrival."""
        count = len(self._waiting)
        if count == 0:
            return
        z = np.array([z for z, _ in self._waiting])
        believed = np.array([weight for _, weight in self._waiting])
        believed *= self._forgetting ** np.arange(count - 1, -1, -1)
        faded = self._forgetting**count
        self._b = faded * self._b + believed.dot(z)
        z *= np.sqrt(believed)[:, None]
        self._a = faded * self._a
        self._a += z.T.dot(z)
        self._waiting.clear()

    def _solve(self) -> bool:
        """Solve for the prices. If that fails (an ill-conditioned system), keep the old ones and count it."""
        self._sum_up()
        self._looked = None
        steps, self._unsolved = self._steps[: self._unsolved], 0
        information = self._a + self._start.ridge
        # Scaled to a unit diagonal: the condition number then does not depend on the units of the features.
        scale = 1 / np.sqrt(information.diagonal())
        scales: Matrix = np.multiply.outer(scale, scale)
        inverse = inverse_of(information * scales)
        if inverse is not None:
            inverse *= scales
            weights = inverse @ (self._b + self._start.pull)
            if abs(weights).max() < MOST_PRICE:
                self.weights, self._inverse = weights, inverse
                return True
        self._inverse = self._inverse - steps.T.dot(steps)
        self.refused += 1
        return False
