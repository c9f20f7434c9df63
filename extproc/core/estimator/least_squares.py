"""Recursive least squares on relative error, in information form.

Given features x (counts) and what the request really cost, k tokens, the prices w minimise

    sum over responses of  lambda^age c (1 - w.x / k)^2   +   (w - m)^T R (w - m)

so that a request of 100 tokens teaches as much as one of 10,000; c <= 1 is how far the response is believed. The
second term is the prior: prices m with covariance C, and R = s^2 C^-1, where s is the relative error that a
well-taught model leaves, .05 where prices are of bytes. With z = x / k,

    A = sum lambda^age c z z^T,   b = sum lambda^age c z,   w = (A + R)^-1 (b + R m).

A and b are sums: those of several replicas add up, in any order, to what one router would have seen. The prior is
no part of them and does not fade: a kind of text that is not seen for months returns to it, gently.

Solving takes a hundred times as long as an estimate. So P = (A + R)^-1 and w follow each response by the rank-one
update of Sherman and Morrison, with v = P z and g = c / (1 + c z.v),

    w <- w + g (1 - z.w) v,   P <- P - g v v^T,

and are found anew from the sums after SOLVE_AFTER responses. In between what was learned before does not fade,
which is all by which they differ from the solution: so fewer responses where forgetting is fast. P itself is not
touched: the rows sqrt(g) v since the last solution are kept as V, and P z = P0 z - V^T (V z) takes a quarter of
the time that writing a matrix of this size would. Both are kept in single precision: they say how surely something
is known, three digits of which would do, and reading them is most of what an estimate takes of memory.

Prior art. NLMS costs less for each response, but crawls where features are as correlated as those of bytes. The
covariance form of RLS alone (Sherman-Morrison on P for good) loses symmetry and positive definiteness over
millions of updates, and cannot be merged; A only ever gets sums of outer products, symmetric to the bit, and
decays, so its entries stay below max(z)^2 / (1 - lambda), and R keeps A + R well away from singular.

`leverage` is what the model does not know about x: s^2 x^T (A + R)^-1 x is the variance of the estimate that comes
from the prices. Over its square, it is large for a script never seen, and small at home.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import sqrt

import numpy as np
import numpy.typing as npt

from extproc.core.estimator.features import Features
from extproc.core.estimator.prices import Prior

__all__ = ["NOISE", "RelativeLeastSquares", "Sums"]

Matrix = npt.NDArray[np.float64]
Single = npt.NDArray[np.float32]

NOISE = 0.05
# Doubles carry 16 digits; a solution that keeps fewer than six of them is not used.
MAX_CONDITION = 1e10
# Responses between two solutions, and how much of the old ones may fade in that time.
SOLVE_AFTER = 64
MAX_FADED = 0.032
FIRST_STEPS = 4


@dataclass(frozen=True, slots=True)
class Sums:
    """A, shape (d, d), and b, shape (d,): all that a model has learned of prices."""

    a: Matrix
    b: Features


@dataclass(frozen=True, slots=True)
class _Start:
    """What all models of one prior begin with, and share: R, R m, R^-1, and sums of nothing."""

    ridge: Matrix
    pull: Features
    inverse: Single
    nothing: Matrix


@lru_cache(maxsize=8)
def _start(prior: Prior, variance: float) -> _Start:
    ridge = variance * prior.precision
    inverse = (prior.covariance / variance).astype(np.float32)
    return _Start(ridge, ridge @ prior.mean, inverse, np.zeros_like(ridge))


class RelativeLeastSquares:
    """Prices of features of one served model.

    `refused` counts responses that would have harmed the numbers. `weights` are tokens per unit of each feature.
    `noise` is the relative error that they leave when they are well taught.
    """

    def __init__(self, prior: Prior, forgetting: float, noise: float = NOISE) -> None:
        size = prior.mean.size
        self._variance = noise * noise
        self._forgetting = forgetting
        self._solve_after = max(1, min(SOLVE_AFTER, int(MAX_FADED / max(1 - forgetting, 1e-9))))
        self._start = start = _start(prior, self._variance)
        # Those of `start` are replaced, and never written to: names are clients', and most teach a model little.
        self._a, self._b = start.nothing, np.zeros(size)
        self._inverse = start.inverse  # P0
        self._steps = np.empty((0, size), np.float32)  # V, of which the first `_unsolved` rows are in use
        self._unsolved = 0
        self._waiting: list[tuple[Features, float]] = []  # z and c of responses that are not in the sums yet
        self.weights: Features = prior.mean
        self.responses = 0
        self.refused = 0
        # How many responses the sums held, faded, and after how many that was.
        self._weighed = 0.0, 0

    @property
    def weight(self) -> float:
        """How many responses the sums hold, faded as they are."""
        weight, at = self._weighed
        since = self.responses - at
        kept = self._forgetting**since
        return kept * weight + (since if kept == 1 else (1 - kept) / (1 - self._forgetting))

    @property
    def sums(self) -> Sums:
        """What is learned, as a copy."""
        self._sum_up()
        return Sums(self._a.copy(), self._b.copy())

    def load(self, sums: Sums, responses: int, weight: float, refused: int = 0) -> None:
        """Go on from sums that this or other routers have made; they have to be finite."""
        self._a, self._b, self.responses, self.refused = sums.a.copy(), sums.b.copy(), responses, refused
        self._weighed = weight, responses
        self._waiting.clear()
        self._solve()

    def shift(self, sums: Sums, responses: int, weight: float, since: int) -> None:
        """Add what others have learned, from so many responses; it is as old as the response number `since`."""
        self._sum_up()
        kept = self._forgetting ** (self.responses - since)
        self._a = self._a + kept * sums.a
        self._b += kept * sums.b
        weight = max(self.weight + kept * weight, 0.0)
        self.responses = max(self.responses + responses, 0)
        self._weighed = weight, self.responses
        self._solve()

    def predict(self, x: Features) -> float:
        """Return w.x in tokens; may be anything when x is unlike all that was seen."""
        return float(self.weights.dot(x))  # of so small arrays @ takes twice as long

    def leverage(self, x: Features) -> float:
        """Return the variance of w.x that comes from the prices, tokens^2; of x / estimate the relative one."""
        of = x.astype(np.float32)
        unknown = float(of.dot(self._inverse.dot(of)))
        if self._unsolved:
            told = self._steps[: self._unsolved].dot(of)
            unknown -= float(told.dot(told))
        return self._variance * max(unknown, 0.0)

    def learn(self, x: Features, tokens: float, weight: float = 1.0, share: float = 1.0) -> bool:
        """Take in one response: x cost so many tokens (> 0); `weight` (0 to 1) is how far it is believed.

        It moves what is predicted of x by `share` (0 to 1) of what it would: a small weight alone does not hold
        back a text that is unlike all others, since nothing else is known of it.
        Return whether the numbers allowed it.
        """
        z = x / tokens
        if not np.isfinite(z).all():
            self.refused += 1
            return False
        spread = self._spread(z.astype(np.float32))
        unknown = max(float(z.dot(spread)), 0.0)
        weight = weight * share / (1 + weight * (1 - share) * unknown)
        gain = weight / (1 + weight * unknown)
        self.weights = self.weights + (gain * (1 - float(z.dot(self.weights)))) * spread
        if self._unsolved == len(self._steps):
            self._make_room()
        np.multiply(spread, sqrt(gain), out=self._steps[self._unsolved])
        self._waiting.append((z, weight))
        self.responses += 1
        self._unsolved += 1
        return self._solve() if self._unsolved == self._solve_after else True

    def _spread(self, z: Single) -> Single:
        """Return P z."""
        spread: Single = self._inverse.dot(z)
        if self._unsolved:
            steps = self._steps[: self._unsolved]
            spread -= steps.dot(z).dot(steps)
        return spread

    def _make_room(self) -> None:
        """Let more steps be kept: twice as many, up to those between two solutions."""
        count, size = self._steps.shape
        steps = np.empty((min(max(2 * count, FIRST_STEPS), self._solve_after), size), np.float32)
        steps[:count] = self._steps
        self._steps = steps

    def _sum_up(self) -> None:
        """Take the waiting responses into the sums, each as if it had been when it came."""
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
        """Find the prices anew; keep the old ones, and count, when the numbers do not allow it."""
        self._sum_up()
        steps, self._unsolved = self._steps[: self._unsolved], 0
        information = self._a + self._start.ridge
        # Scaled to a unit diagonal, the condition is that of the directions and not of the units of features.
        scale = 1 / np.sqrt(information.diagonal())
        scales: Matrix = np.multiply.outer(scale, scale)
        inverse = _inverse(information * scales)
        if inverse is None:
            self._inverse = self._inverse - steps.T.dot(steps)
            self.refused += 1
            return False
        inverse *= scales
        self.weights = inverse @ (self._b + self._start.pull)
        self._inverse = inverse.astype(np.float32)
        return True


def _inverse(matrix: Matrix) -> Matrix | None:
    """Return the inverse, or None where too few digits of it are left."""
    try:
        inverse = np.linalg.inv(matrix).astype(np.float64, copy=False)
    except np.linalg.LinAlgError:
        return None
    return inverse if np.abs(inverse).max() < MAX_CONDITION else None  # also refuses NaN
