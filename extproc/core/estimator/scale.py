"""How far an estimate may err, request by request: a log-linear model of the squared error.

A bound has to be wide where errors are, and narrow where they are not: a request of 200 tokens scatters more than
one of 8,000, tables more than prose, and a script that was seen once more than English. So with e the log error of
a response, s0 the scale that its category and its prices tell, and f what is known of the request beforehand,

    log(e^2 / s0^2) = t.f + noise          s^2 = s0^2 exp(t.f)

t by least squares over a model's responses, older ones fading, with a pull towards 0: at first s is s0. The sums
A = sum f f^T and b = sum f log(e^2 / s0^2) of several replicas add up. The mean of the noise is the same for all
requests, so it goes into the constant, and the bound's q makes good for it.

f holds a constant, the logarithm of the size, that of the leverage (how unlike the request is to all that taught
the prices), the share of the tokens that each group of features costs, and the youth of the category.

Prior art: multiplicative heteroscedasticity (Harvey, 1976); locally weighted conformal inference (Lei et al.,
2018) scales errors by such an estimate, and adaptive conformal inference (bound.py) then holds the rate whatever
the scale is worth. Rejected: one scale per category (1.4 times as many
detours near a threshold); q for each kind of
text, which sees too few of the 1 % that it counts; weighted likelihood, which needs the responses again.
"""

from collections.abc import Sequence
from math import exp, log
from operator import mul

import numpy as np
import numpy.typing as npt

from extproc.core.estimator.features import GROUP_COUNT

__all__ = ["SCALE_FACTORS", "LogVariance", "Vector"]

Vector = npt.NDArray[np.float64]

RIDGE = 20.0  # as many responses of pull towards s0
FORGETTING = 0.999
MIN_ERROR = 0.003  # below this an error is luck; its logarithm would say so loudly
MAX_LOG = 6.0  # s within a factor of 20 of s0
SCALE_FACTORS = 4 + GROUP_COUNT


class LogVariance:
    """The scale of one served model; A is `a`, shape (m, m), b is `b`, shape (m,)."""

    def __init__(self) -> None:
        self.a = np.zeros((SCALE_FACTORS, SCALE_FACTORS))
        self.b = np.zeros(SCALE_FACTORS)
        self._t = [0.0] * SCALE_FACTORS

    def variance(self, base: float, factors: Sequence[float]) -> float:
        """Return s^2, from s0^2 and f, SCALE_FACTORS of them."""
        return base * exp(min(max(sum(map(mul, self._t, factors)), -MAX_LOG), MAX_LOG))

    def learn(self, base: float, factors: Sequence[float], error: float) -> None:
        """Take in the log error of one response, whose s0^2 was `base`."""
        f = np.array(factors)
        self.a *= FORGETTING
        self.a += np.multiply.outer(f, f)
        self.b *= FORGETTING
        self.b += f * log(max(error * error, MIN_ERROR * MIN_ERROR) / base)
        self._solve()

    def load(self, a: Vector, b: Vector) -> None:
        """Go on from sums that this or other routers have made; they have to be finite."""
        self.a, self.b = a.reshape(SCALE_FACTORS, SCALE_FACTORS).copy(), b.copy()
        self._solve()

    def shift(self, a: Vector, b: Vector, responses: int) -> None:
        """Add what others have learned, as old as so many responses."""
        kept = FORGETTING**responses
        self.a += kept * a.reshape(SCALE_FACTORS, SCALE_FACTORS)
        self.b += kept * b
        self._solve()

    def _solve(self) -> None:
        self._t = np.linalg.solve(self.a + _RIDGE, self.b).tolist()


_RIDGE = RIDGE * np.eye(SCALE_FACTORS)
