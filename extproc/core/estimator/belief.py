"""Steps 1 to 4 of byteclass.py for one request: what a model makes of it, as it stands now."""

from collections.abc import Sequence
from math import exp, log, sqrt
from typing import Protocol

import msgspec

from extproc.core.estimator.bound import AdaptiveBound
from extproc.core.estimator.evidence import fewest_tokens
from extproc.core.estimator.features import OF_MEDIA, OF_STRUCTURE, Features, Views
from extproc.core.estimator.least_squares import NOISE, RelativeLeastSquares
from extproc.core.estimator.residual import Residual
from extproc.core.estimator.scale import USUAL_LEVERAGE, LogVariance

__all__ = ["Belief", "Taught", "believe"]

OVERHEAD = 4.0
TEMPLATE_TOKENS = 256.0
GRAIN = 0.5
# Where the factors of the scale are about 0, so that its constant is that of an ordinary request.
USUAL_LOG_TOKENS = log(1_000)
USUAL_LOG_LEVERAGE = log(USUAL_LEVERAGE)
LEAST_LEVERAGE = 1e-9
MOST_SHARE = 2.0
# Up to twice the usual deviation, what the prices do not know yet is of the ordinary.
ORDINARY = 4.0
# What is beyond it counts three times: prices that were right in all that was seen need not be so in what was not.
STRANGE = 3.0


class Taught(Protocol):
    """What a request is estimated by: a served model, or what is learned of new parts of its conversations."""

    prices: RelativeLeastSquares
    views: Views
    scale: LogVariance
    bound: AdaptiveBound


class Belief(msgspec.Struct, frozen=True, gc=False):
    """The likeliest tokens of a request, its bound, and how they came about.

    `highest` is the physical limit, `residual` the r in the estimate, `doubt` the variance of log(actual / tokens)
    that the prices and the grain of counting leave. `variance` is what they and the category's spread make,
    `scale` the standard deviation that it comes to with `factors`, and with how unlike the request is to all that
    taught the prices (scale.py).
    """

    tokens: float
    bound: float
    highest: float
    residual: float
    doubt: float
    variance: float
    factors: Sequence[float]
    scale: float

    def trust(self, usual_spread: float) -> float:
        """Return how far the prices believe the response: less where errors are larger than those of their model.

        What is in doubt of the prices themselves is none of it: from such responses there is most to learn.
        """
        noise = self.scale * self.scale * (1 - self.doubt / self.variance)
        usual = max(usual_spread, NOISE) ** 2
        return usual / max(noise, usual)


def believe(x: Features, text_bytes: int, model: Taught, residual: Residual, *, more_q: float = 0.0) -> Belief:
    """Estimate the tokens of a request with features x, shape (d,), from a model and a category's residual.

    `more_q` is what its source's bound has beside the model's q.
    """
    prices = model.prices
    *priced, prior_structure, padding_bytes = model.views.of(x, prices.weights)
    beside_text = max(prior_structure, priced[OF_STRUCTURE] + priced[OF_MEDIA])
    lowest = max(fewest_tokens(text_bytes, padding_bytes), 1.0)
    highest = text_bytes + OVERHEAD * beside_text + TEMPLATE_TOKENS
    tokens = min(max(sum(priced) * exp(residual.mean), lowest), highest)
    leverage = prices.leverage(x) / (tokens * tokens)
    doubt = leverage + GRAIN / tokens
    variance = residual.spread * residual.spread + doubt
    # What each group has of the tokens. Prices may be odd, so within 0 and 2.
    shares = [cost / tokens for cost in priced]
    if min(shares) < 0 or max(shares) > MOST_SHARE:
        shares = [min(abs(share), MOST_SHARE) for share in shares]
    factors = (
        1.0,
        log(tokens) - USUAL_LOG_TOKENS,
        log(leverage + LEAST_LEVERAGE) - USUAL_LOG_LEVERAGE,
        1 / sqrt(1 + residual.responses),
        *shares,
    )
    unlike = STRANGE * max(leverage - ORDINARY * model.scale.usual_leverage, 0.0)
    scale = sqrt(model.scale.variance(variance, factors) + unlike)
    bound = min(model.bound.above(tokens, scale, more_q), highest)
    return Belief(tokens, bound, highest, residual.mean, doubt, variance, factors, scale)
