"""Tokens that a server adds to each prompt of one tenant: a system prompt, tools, text that it looked up.

The idea. A constant is no factor: 1,500 tokens more are 8 times a prompt of 200, and a fifth of one of 8,000. So
for each tenant of a model, with p what the prices make of a request, and k the tokens that usage tells,

    k = a + b p + noise        by least squares on relative error: minimise sum lambda^age (1 - (a + b p) / k)^2

with a pull of b to 1, and of a to its parent's, which is 0: what a model's template adds to all requests is a
price (prices.py). b is there so that a is not blamed for what is a factor; factors are the residual's
(residual.py). a is shrunk by its own uncertainty, a (1 - (DEVIATIONS se / a)^2), and 0 below it: so it is 0 for a
tenant without one, and until it stands out. An estimate is a and the estimate of the rest, and only k - a teaches
prices, residual, scale and q: neither does the tenant miss, nor does its constant widen the bound of others.

One response is no proof, either way: a single one without the constant (its prompt came from a cache, its counter
was another) would weigh as much as twenty with it, being small. So what a response says beyond CLIP_SCALES of the
noise is clipped to that, and believed by as much less (clipping.py). What has really changed is found by a second
fit, which knows the last TRIAL responses at most, as they are: when its errors, each against the first one's and
at most MOST_AT_ONCE, are less by ENOUGH in sum, it takes the first one's place. So a constant that ends, begins or
changes is followed within tens of responses.

The sums would add up, but are of one process and not shared: each learns a within ten to twenty responses of the
tenant, and until five have come, those beyond belief teach the constant alone. Where no header tells tenants
apart there are no such constants.

Prior art: ridge regression (Hoerl and Kennard, 1970); shrinkage by the positive part (James and Stein, 1961;
Baranchik, 1964); cumulative sums (Page, 1954), as in rivals.py. Rejected: a constant for each kind of text, which
the prices hold already; a without b, which is wrong by a tenth of its mean prompt for a tenant whose words are a
tenth dearer.
"""

from math import exp, log, sqrt

from extproc.core.estimator.clipping import clipped_error

__all__ = ["Extra"]

FORGETTING = 0.98  # as the residual's slowest step: 50 responses
RIDGE_A = (0.05 / 1_000) ** 2  # an error of 5 % against a constant of about 1,000 tokens
RIDGE_B = (0.05 / 0.1) ** 2  # and a factor of about 1.1
DEVIATIONS = 4.0
LEAST_NOISE = 0.02  # of the relative error
LEAST_RESPONSES = 4  # of weight; two of them are what two numbers fit by themselves
LEAST_RATIO = 0.5  # a prompt that cost less than that of its estimate was cut, or counted in part
TRIAL = 20  # responses
MOST_AT_ONCE, ENOUGH = 0.25, 1.0  # as of rivals: four responses that are off by far


class Extra:
    """The constant of one tenant of one model, in `tokens`."""

    __slots__ = ("_fit", "_score", "_second")

    def __init__(self) -> None:
        self._fit, self._second = _Fit(), _Fit()
        self._score = 0.0

    @property
    def tokens(self) -> float:
        """What is added to each prompt, as far as it stands out; 0 until it does."""
        return self._fit.tokens

    @property
    def is_open(self) -> bool:
        """Whether too few responses came to tell a constant from an error."""
        return self._fit.is_open

    def learn(self, priced: float, actual: float) -> None:
        """Take in the tokens of a response, and what the prices make of its request."""
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
    """k = a + b p by least squares; `tokens` is a, less what is in doubt of it."""

    __slots__ = ("_a", "_aa", "_ab", "_ak", "_b", "_bb", "_bk", "_noise", "_weight", "responses", "tokens")

    def __init__(self) -> None:
        self.tokens = 0.0
        self.responses = 0
        self._a, self._b, self._noise = 0.0, 1.0, 1.0
        self._weight = self._aa = self._ab = self._bb = self._ak = self._bk = 0.0

    @property
    def is_open(self) -> bool:
        """Whether too few responses came to tell a constant from an error."""
        return self._weight < LEAST_RESPONSES

    def error(self, priced: float, actual: float) -> float:
        """Return log(actual / what it makes of a request)."""
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
        """Take in a response as it is; `weight` is how far it is believed."""
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
