"""Tokens that a server adds to each prompt of one tenant: a system prompt, tools, text that it looked up.

The idea. A constant is no factor: 1,500 tokens more are 8 times a prompt of 200, and a fifth of one of 8,000. So
for each tenant of a model, with p what the prices make of a request, and k the tokens that usage tells,

    k = a + b p + noise        by least squares on relative error: minimise sum lambda^age (1 - (a + b p) / k)^2

with a pull of b to 1, and of a to its parent's, which is 0: what a model's template adds to all requests is a
price (prices.py). b is there so that a is not blamed for what is a factor; factors are the residual's
(residual.py). a is shrunk by its own uncertainty, a (1 - (DEVIATIONS se / a)^2), and 0 below it: so it is 0 for a
tenant without one, and until it stands out. An estimate is a and the estimate of the rest, and only k - a teaches
prices, residual, scale and q: neither does the tenant miss, nor does its constant widen the bound of others.

The sums would add up, but are of one process and not shared: each learns a within ten to twenty responses of the
tenant, and until five have come, those beyond belief teach the constant alone. Where no header tells tenants
apart there are no such constants.

Prior art: ridge regression (Hoerl and Kennard, 1970); shrinkage by the positive part (James and Stein, 1961;
Baranchik, 1964). Rejected: a constant for each kind of text, which the prices hold already; a without b, which is
wrong by a tenth of its mean prompt for a tenant whose words are a tenth dearer.
"""

from math import sqrt

__all__ = ["Extra"]

FORGETTING = 0.98  # as the residual's slowest step: 50 responses
RIDGE_A = (0.05 / 1_000) ** 2  # an error of 5 % against a constant of about 1,000 tokens
RIDGE_B = (0.05 / 0.1) ** 2  # and a factor of about 1.1
DEVIATIONS = 4.0
LEAST_NOISE = 0.02  # of the relative error
LEAST_RESPONSES = 4  # of weight; two of them are what two numbers fit by themselves
LEAST_RATIO = 0.5  # a prompt that cost less than that of its estimate was cut, or counted in part


class Extra:
    """The constant of one tenant of one model, in `tokens`."""

    __slots__ = ("_aa", "_ab", "_ak", "_bb", "_bk", "_weight", "tokens")

    def __init__(self) -> None:
        self.tokens = 0.0
        self._weight = self._aa = self._ab = self._bb = self._ak = self._bk = 0.0

    @property
    def is_open(self) -> bool:
        """Whether too few responses came to tell a constant from an error."""
        return self._weight < LEAST_RESPONSES

    def learn(self, priced: float, actual: float) -> None:
        """Take in the tokens of a response, and what the prices make of its request."""
        if actual < LEAST_RATIO * priced:
            return
        a, b = 1 / actual, priced / actual
        self._weight = FORGETTING * self._weight + 1
        self._aa = FORGETTING * self._aa + a * a
        self._ab = FORGETTING * self._ab + a * b
        self._bb = FORGETTING * self._bb + b * b
        self._ak = FORGETTING * self._ak + a
        self._bk = FORGETTING * self._bk + b
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
