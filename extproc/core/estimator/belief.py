"""Steps 1 to 4 of byteclass.py for one request: what a model in its current state estimates for it."""

from collections.abc import Sequence
from math import exp, log, sqrt
from typing import Protocol

import msgspec

from extproc.core.estimator.bound import AdaptiveBound
from extproc.core.estimator.evidence import fewest_tokens
from extproc.core.estimator.features import GROUP_COUNT, OF_MEDIA, OF_STRUCTURE, Features, Views
from extproc.core.estimator.least_squares import NOISE, RelativeLeastSquares
from extproc.core.estimator.residual import Residual
from extproc.core.estimator.scale import USUAL_LEVERAGE, LogVariance

__all__ = ["Belief", "Taught", "believe"]

OVERHEAD = 4.0
TEMPLATE_TOKENS = 256.0
GRAIN = 0.5
# The factors of the scale are 0 at these values, so its constant is that of an ordinary request.
USUAL_LOG_TOKENS = log(1_000)
USUAL_LOG_LEVERAGE = log(USUAL_LEVERAGE)
LEAST_LEVERAGE = 1e-9
MOST_SHARE = 2.0
# A multiple of the usual variance: up to twice the usual deviation, uncertainty of the prices is ordinary.
ORDINARY = 4.0
# The excess counts three times: prices that were right on everything seen so far may be wrong on something new.
STRANGE = 3.0


class Taught(Protocol):
    """The learned parts that an estimate needs: a served model's, or those for continued conversations."""

    prices: RelativeLeastSquares
    views: Views
    scale: LogVariance
    bound: AdaptiveBound
    media_bound: AdaptiveBound


class Belief(msgspec.Struct, frozen=True, gc=False):
    """The most likely token count of a request, its bound, and how they were derived.

    `highest` is the physical limit, `residual` the r in the estimate, `doubt` the variance of log(actual / tokens)
    due to the prices and to the granularity of counting. `variance` adds the category's spread to that. `scale` is
    the standard deviation after `factors` and the request's distance from everything that taught the prices are
    applied (scale.py). `q` is what the bound was made with, and what its response is scored by.
    """

    tokens: float
    bound: float
    highest: float
    residual: float
    doubt: float
    variance: float
    factors: Sequence[float]
    scale: float
    q: AdaptiveBound

    def trust(self, usual_spread: float) -> float:
        """Return the weight of the response in the prices, at most 1: lower if its scale exceeds the usual spread.

        Doubt about the prices themselves does not count against it: there is most to learn from such responses.
        """
        noise = self.scale * self.scale * (1 - self.doubt / self.variance)
        spread = usual_spread if usual_spread > NOISE else NOISE
        usual = spread * spread
        return usual / noise if noise > usual else 1.0


def believe(
    x: Features,
    text_bytes: int,
    model: Taught,
    residual: Residual,
    *,
    more_q: float = 0.0,
    sums: Sequence[float] | None = None,
) -> Belief:
    """Estimate the tokens of a request with features x, shape (d,), from a model and a category's residual.

    `more_q` is added to the model's q for the bound of this request's source. `sums` are the model's views of x,
    if they have been computed.
    """
    if sums is None:
        sums = model.views.of(x, model.prices.weights)
    priced, prior_structure, padding_bytes = sums[:GROUP_COUNT], sums[GROUP_COUNT], sums[GROUP_COUNT + 1]
    structure, fewest = priced[OF_STRUCTURE] + priced[OF_MEDIA], fewest_tokens(text_bytes, padding_bytes)
    other_tokens = structure if structure > prior_structure else prior_structure
    lowest = fewest if fewest > 1 else 1.0
    highest = text_bytes + OVERHEAD * other_tokens + TEMPLATE_TOKENS
    likely = sum(priced) * exp(residual.mean)
    tokens = lowest if likely < lowest else highest if likely > highest else likely
    leverage = model.prices.leverage(x) / (tokens * tokens)
    doubt = leverage + GRAIN / tokens
    variance = residual.spread * residual.spread + doubt
    # Each group's share of the tokens. Prices may be odd, so shares are limited to 0 to 2.
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
    unlike = leverage - ORDINARY * model.scale.usual_leverage
    scale = sqrt(model.scale.variance(variance, factors) + (STRANGE * unlike if unlike > 0 else 0.0))
    q = model.media_bound if priced[OF_MEDIA] else model.bound
    above = q.above(tokens, scale, more_q)
    bound = above if above < highest else highest
    return Belief(tokens, bound, highest, residual.mean, doubt, variance, factors, scale, q)
