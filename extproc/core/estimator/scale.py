"""How far an estimate may err, per request: a log-linear model of the squared error.

A bound has to be wide where errors are large, and narrow where they are small: errors scatter more on a request of
200 tokens than on one of 8,000, more on tables than on prose, and more on a script that is nearly new than on
English. So with e the log error of a response, s0 the scale according to its category and prices, and f what is
known about the request in advance,

    log(e^2 / s0^2) = t.f + noise          s^2 = s0^2 exp(t.f)

t is fitted by least squares over a model's responses, older ones fading, with a pull towards 0: at first s is s0.
The sums A = sum f f^T and b = sum f log(e^2 / s0^2) of several replicas add up. The mean of the noise is the same
for all requests, so it becomes part of the constant, and the bound's q compensates for it. t is solved for only
after every eighth response, since solving costs more than the rest of learning.

t does not apply to a request unlike everything that taught it: on ordinary text, errors are a half to a fifth of
s0, and the first text in Cherokee would be assumed to err just as little. So the part of the leverage that is not
ordinary (belief.py: above four times its usual value, which the sums contain, too) is multiplied by three and
added to s^2.

f contains a constant, the logarithm of the size, the logarithm of the leverage (how unlike the request is to
everything that taught the prices), the share of the tokens that each group of features costs, and how new the
category is.

Prior art: multiplicative heteroscedasticity (Harvey, 1976); locally weighted conformal inference (Lei et al.,
2018) scales errors by such an estimate, and adaptive conformal inference (bound.py) then holds the rate however
good the scale is. Rejected: one scale per category (1.4 times as many detours near a threshold); a q for each kind
of text, which sees too few of the misses (1 %) that it is adjusted by; weighted likelihood, which needs the past
responses.
"""

from collections.abc import Sequence
from itertools import chain
from math import exp, log
from operator import mul

import numpy as np
import numpy.typing as npt

from extproc.core.estimator.features import GROUP_COUNT

__all__ = ["SCALE_FACTORS", "LogVariance", "Vector"]

Vector = npt.NDArray[np.float64]

RIDGE = 20.0  # the pull towards s0, in responses
FORGETTING = 0.999
SOLVE_AFTER = 8  # responses: each moves t only a little, and solving takes four times as long as the rest
MIN_ERROR = 0.003  # a smaller error is luck, and its logarithm would weigh too much
MIN_SQUARE = MIN_ERROR**2
MOST_T = 1e100  # t.f stays a number
MAX_LOG = 6.0  # s within a factor of 20 of s0
SCALE_FACTORS = 4 + GROUP_COUNT
OF_LEVERAGE = 2  # index in f of log(leverage / USUAL_LEVERAGE)
USUAL_LEVERAGE = 0.001


class LogVariance:
    """The scale of one served model.

    `usual_leverage` is the geometric mean of the leverage of the requests that taught it.
    """

    def __init__(self) -> None:
        self._a = np.zeros((SCALE_FACTORS, SCALE_FACTORS))
        self._b = np.zeros(SCALE_FACTORS)
        self._waiting: list[
            tuple[float, Sequence[float], float]
        ] = []  # weight, f, and log(e^2 / s0^2), not yet in the sums
        self._t = [0.0] * SCALE_FACTORS
        self.usual_leverage = USUAL_LEVERAGE

    @property
    def sums(self) -> tuple[Vector, Vector]:
        """The learned sums: A, shape (m, m), and b, shape (m,)."""
        self._sum_up()
        return self._a, self._b

    def variance(self, base: float, factors: Sequence[float]) -> float:
        """Return s^2, given s0^2 and the SCALE_FACTORS values of f."""
        fitted = sum(map(mul, self._t, factors))
        return base * exp(-MAX_LOG if fitted < -MAX_LOG else MAX_LOG if fitted > MAX_LOG else fitted)

    def learn(self, base: float, factors: Sequence[float], error: float, weight: float = 1.0) -> None:
        """Take in the log error of one response with s0^2 `base`; `weight` is how much it counts."""
        square = error * error
        self._waiting.append((weight, factors, log((square if square > MIN_SQUARE else MIN_SQUARE) / base)))
        if len(self._waiting) >= SOLVE_AFTER:
            self._solve()

    def load(self, a: Vector, b: Vector) -> None:
        """Continue from sums that this or other routers have made; they must be finite."""
        self._a, self._b = a.reshape(SCALE_FACTORS, SCALE_FACTORS).copy(), b.copy()
        self._waiting.clear()
        self._solve()

    def shift(self, a: Vector, b: Vector, responses: int) -> None:
        """Add what others learned, `responses` responses ago."""
        self._sum_up()
        kept = FORGETTING**responses
        self._a += kept * a.reshape(SCALE_FACTORS, SCALE_FACTORS)
        self._b += kept * b
        self._solve()

    def _sum_up(self) -> None:
        """Add the waiting responses to the sums, each faded as if added on arrival."""
        count = len(self._waiting)
        if count == 0:
            return
        every = chain.from_iterable(factors for _, factors, _ in self._waiting)
        f = np.fromiter(every, np.float64, count * SCALE_FACTORS).reshape(count, SCALE_FACTORS)
        weights = np.array([weight for weight, _, _ in self._waiting])
        faded = f * (weights * _FADED[-count:])[:, None]
        kept = FORGETTING**count
        self._a = kept * self._a + faded.T.dot(f)
        self._b = kept * self._b + np.array([logarithm for _, _, logarithm in self._waiting]).dot(faded)
        self._waiting.clear()

    def _solve(self) -> None:
        self._sum_up()
        try:
            t = np.linalg.solve(self._a + _RIDGE, self._b)
            usual = USUAL_LEVERAGE * exp(self._a[0, OF_LEVERAGE] / (self._a[0, 0] + RIDGE))
        except (np.linalg.LinAlgError, OverflowError):
            return  # sums from elsewhere that no responses make
        if abs(t).max() < MOST_T:  # not if one is not a number
            self._t, self.usual_leverage = t.tolist(), usual


_RIDGE = RIDGE * np.eye(SCALE_FACTORS)
_FADED = FORGETTING ** np.arange(SOLVE_AFTER - 1, -1, -1)
