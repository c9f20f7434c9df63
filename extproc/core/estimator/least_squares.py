"""Recursive least squares on relative error, in information form.

Given features x (counts) and what the request really cost, k tokens, the prices w minimise

    sum over responses of  lambda^age c (1 - w.x / k)^2   +   (w - m)^T R (w - m)

so that a request of 100 tokens teaches as much as one of 10,000; c <= 1 is how far the response is believed. The
second term is the prior: prices m with covariance C, and R = s^2 C^-1, where s = .05 is the relative error that a
well-taught model leaves. With z = x / k,

    A = sum lambda^age c z z^T,   b = sum lambda^age c z,   w = (A + R)^-1 (b + R m).

A and b are sums: those of several replicas add up, in any order, to what one router would have seen. The prior is
no part of them and does not fade: a kind of text that is not seen for months returns to it, gently.

Prior art. NLMS costs less for each response, but crawls where features are as correlated as those of bytes. The
covariance form of RLS (Sherman-Morrison on P) loses symmetry and positive definiteness over millions of updates,
and cannot be merged; A only ever gets an outer product, symmetric to the bit, and decays, so its entries stay
below max(z)^2 / (1 - lambda), and R keeps A + R well away from singular.

`leverage` is what the model does not know about x: with u = x / estimate, s^2 u^T (A + R)^-1 u is the relative
variance of the estimate that comes from the prices. It is large for a script never seen, and small at home.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

import numpy as np
import numpy.typing as npt

from extproc.core.estimator.features import Features, Prior

__all__ = ["NOISE", "RelativeLeastSquares", "Sums"]

Matrix = npt.NDArray[np.float64]

NOISE = 0.05
# Doubles carry 16 digits; a solution that keeps fewer than six of them is not used.
MAX_CONDITION = 1e10
# Solving costs more than an estimate. A taught model hardly moves in a few responses.
EAGER_RESPONSES = 200
LAZY_RESPONSES = 8


@dataclass(frozen=True, slots=True)
class Sums:
    """A, shape (d, d), and b, shape (d,): all that a model has learned of prices."""

    a: Matrix
    b: Features

    @classmethod
    def merged(cls, parts: Sequence["Sums"]) -> "Sums":
        """Add up what replicas have learned; math.fsum rounds once, so the order does not matter, to the bit."""
        a = [fsum(cells) for cells in zip(*(part.a.ravel().tolist() for part in parts), strict=True)]
        b = [fsum(cells) for cells in zip(*(part.b.tolist() for part in parts), strict=True)]
        return cls(np.array(a).reshape(len(b), len(b)), np.array(b))


class RelativeLeastSquares:
    """Prices of features of one served model.

    `refused` counts responses that would have harmed the numbers. `weights` are tokens per unit of each feature.
    """

    def __init__(self, prior: Prior, forgetting: float) -> None:
        size = prior.mean.size
        self._forgetting = forgetting
        self._ridge = NOISE * NOISE * prior.precision
        self._pull = self._ridge @ prior.mean
        self._a, self._b = np.zeros((size, size)), np.zeros(size)
        self._inverse = prior.covariance / (NOISE * NOISE)
        self._unsolved = 0
        self.weights: Features = prior.mean
        self.responses = 0
        self.refused = 0

    @property
    def sums(self) -> Sums:
        """What is learned, as a copy."""
        return Sums(self._a.copy(), self._b.copy())

    def load(self, sums: Sums, responses: int, refused: int = 0) -> None:
        """Go on from sums that this or other routers have made; they have to be finite."""
        self._a, self._b, self.responses, self.refused = sums.a.copy(), sums.b.copy(), responses, refused
        self._solve()

    def forget(self) -> None:
        """Drop all that was learned, and start again from the prior, as young as at first."""
        self._a[:], self._b[:], self.responses = 0.0, 0.0, 0
        self._solve()

    def predict(self, x: Features) -> float:
        """Return w.x in tokens; may be anything when x is unlike all that was seen."""
        return float(self.weights.dot(x))  # of so small arrays @ takes twice as long

    def leverage(self, u: Features) -> float:
        """Return the relative variance of an estimate that comes from the prices; u = x / estimate."""
        return NOISE * NOISE * max(float(u.dot(self._inverse.dot(u))), 0.0)

    def learn(self, x: Features, tokens: float, weight: float = 1.0) -> bool:
        """Take in one response: x cost so many tokens (> 0); `weight` (0 to 1) is how far it is believed.

        Return whether the numbers allowed it.
        """
        z = x / tokens
        if not np.isfinite(z).all():
            self.refused += 1
            return False
        self._a *= self._forgetting
        self._a += weight * np.outer(z, z)
        self._b *= self._forgetting
        self._b += weight * z
        self.responses += 1
        self._unsolved += 1
        return self._solve() if self.responses <= EAGER_RESPONSES or self._unsolved >= LAZY_RESPONSES else True

    def _solve(self) -> bool:
        """Find the prices anew; keep the old ones, and count, when the numbers do not allow it."""
        self._unsolved = 0
        information = self._a + self._ridge
        # Scaled to a unit diagonal, the condition is that of the directions and not of the units of features.
        scale = 1 / np.sqrt(information.diagonal())
        try:
            inverse = np.linalg.inv(information * np.outer(scale, scale))
        except np.linalg.LinAlgError:
            self.refused += 1
            return False
        if not np.abs(inverse).max() < MAX_CONDITION:  # also refuses NaN
            self.refused += 1
            return False
        self._inverse = inverse * np.outer(scale, scale)
        self.weights = self._inverse @ (self._b + self._pull)
        return True
