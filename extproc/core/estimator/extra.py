"""Tokens that a server adds to every prompt of one tenant: a system prompt, tools, retrieved text.

The idea. A constant is not a factor: 1,500 additional tokens are 8 times a prompt of 200, and a fifth of one of
8,000. So for each tenant of a model, with p the tokens of a request according to the prices, and k the tokens in
its usage,

    k = a + b p + noise        by least squares on relative error: minimise sum lambda^age (1 - (a + b p) / k)^2

with a pull of b towards 1, and of a towards 0: what a model's template adds to all requests is already a price
(prices.py). b keeps a from absorbing what is a factor; factors belong to the residual (residual.py). a is shrunk
by its own uncertainty to a (1 - (DEVIATIONS se / a)^2), and is 0 below DEVIATIONS se: so it is 0 for a tenant
without a constant, and until the constant stands out. An estimate is a plus the estimate of the rest, and only k -
a teaches prices, residual, scale and q: so the tenant's bounds are not missed, and its constant does not widen the
bounds of others.

A single response proves nothing, either way: one without the constant (its prompt came from a cache, or another
counter was used) would weigh as much as twenty with it, because it is small. So a response's error is clipped to
CLIP_SCALES of the noise, and its weight reduced by the same ratio (clipping.py). Real changes are found by a
second fit, which takes in the last TRIAL responses at most, unclipped: when the sum of its advantages over the
first fit, each at most MOST_AT_ONCE, reaches ENOUGH, it replaces the first one. So a constant that ends, begins or
changes is followed within tens of responses.

The sums could be added up across replicas, but they belong to one process and are not shared: each process learns
a within ten to twenty responses of the tenant. Until five responses have come, those with a clipped error teach
the constant alone. If no header identifies tenants, there are no such constants.

Prior art: ridge regression (Hoerl and Kennard, 1970); shrinkage by the positive part (James and Stein, 1961;
Baranchik, 1964); cumulative sums (Page, 1954), as in rivals.py. Rejected: a constant for each kind of text, which
the prices contain already; a without b, which is wrong by a tenth of the mean prompt for a tenant whose words cost
a tenth more.
"""

from math import exp, log, sqrt

from extproc.core.estimator.clipping import clipped_error

__all__ = ["Extra"]

FORGETTING = 0.98  # a memory of 50 responses, like the residual's slowest step
RIDGE_A = (0.05 / 1_000) ** 2  # an error of 5 % against a constant of about 1,000 tokens
RIDGE_B = (0.05 / 0.1) ** 2  # and a factor of about 1.1
DEVIATIONS = 4.0
LEAST_NOISE = 0.02  # of the relative error
LEAST_RESPONSES = 4  # sum of weights; two parameters fit the first two responses exactly
LEAST_RATIO = 0.5  # a prompt that cost less than this share of its estimate was cut or counted in part
TRIAL = 20  # responses
MOST_AT_ONCE, ENOUGH = 0.25, 1.0  # as in rivals.py: four responses that are far off


class Extra:
    """The constant of one tenant of one model, in `tokens`."""

    __slots__ = ("_fit", "_score", "_second")

    def __init__(self) -> None:
        self._fit, self._second = _Fit(), _Fit()
        self._score = 0.0

    @property
    def tokens(self) -> float:
        """The tokens added to each prompt, less the uncertainty; 0 until the constant stands out."""
        return self._fit.tokens

    @property
    def is_open(self) -> bool:
        """Whether there were too few responses to distinguish a constant from an error."""
        return self._fit.is_open

    def learn(self, priced: float, actual: float) -> None:
        """Take in the tokens of a response; `priced` is the estimate of its request by the prices."""
        if actual < LEAST_RATIO * priced:
            return
        fit, second = self._fit, self._second
        if not (fit.is_open or second.is_open):
            better = abs(fit.error(priced, actual)) - abs(second.error(priced, actual))
            self._score = max(0.0, self._score + min(max(better, -MOST_AT_ONCE), MOST_AT_ONCE))
        if self._score >= ENOUGH:
            self._fit, self._second, self._score = second, _Fit(), 0.0
            second.learn(priced, actual)
            return
        if second.responses >= TRIAL:
            self._second, self._score = _Fit(), 0.0
        fit.learn_clipped(priced, actual)
        self._second.learn(priced, actual)


class _Fit:
    """k = a + b p by least squares; `tokens` is a shrunk by its uncertainty."""

    __slots__ = ("_a", "_aa", "_ab", "_ak", "_b", "_bb", "_bk", "_noise", "_weight", "responses", "tokens")

    def __init__(self) -> None:
        self.tokens = 0.0
        self.responses = 0
        self._a, self._b, self._noise = 0.0, 1.0, 1.0
        self._weight = self._aa = self._ab = self._bb = self._ak = self._bk = 0.0

    @property
    def is_open(self) -> bool:
        """Whether there were too few responses to distinguish a constant from an error."""
        return self._weight < LEAST_RESPONSES

    def error(self, priced: float, actual: float) -> float:
        """Return log(actual / the fit's estimate of the request)."""
        return log(actual / max(self._a + self._b * priced, 1.0))

    def learn_clipped(self, priced: float, actual: float) -> None:
        """Take in a response as far as it can be believed."""
        if self.is_open:
            self.learn(priced, actual)
            return
        error = self.error(priced, actual)
        believed = clipped_error(error, self._noise)
        self.learn(priced, actual * exp(believed - error), 1.0 if believed == error else believed / error)

    def learn(self, priced: float, actual: float, weight: float = 1.0) -> None:
        """Take in a response without clipping; `weight` is how far it is believed."""
        a, b = 1 / actual, priced / actual
        self.responses += 1
        self._weight = FORGETTING * self._weight + weight
        self._aa = FORGETTING * self._aa + weight * a * a
        self._ab = FORGETTING * self._ab + weight * a * b
        self._bb = FORGETTING * self._bb + weight * b * b
        self._ak = FORGETTING * self._ak + weight * a
        self._bk = FORGETTING * self._bk + weight * b
        self._solve()

    def _solve(self) -> None:
        if self.is_open:
            return
        aa, ab, bb = self._aa + RIDGE_A, self._ab, self._bb + RIDGE_B
        ak, bk = self._ak, self._bk + RIDGE_B
        determinant = aa * bb - ab * ab
        a, b = (bb * ak - ab * bk) / determinant, (aa * bk - ab * ak) / determinant
        left = self._weight - 2 * (a * self._ak + b * self._bk)
        left += a * a * self._aa + 2 * a * b * self._ab + b * b * self._bb
        noise = sqrt(max(left / (self._weight - 2), LEAST_NOISE * LEAST_NOISE))
        doubt = DEVIATIONS * noise * sqrt(bb / determinant)
        self.tokens = a * (1 - (doubt / a) ** 2) if a > doubt else 0.0
        self._a, self._b, self._noise = a, b, noise
