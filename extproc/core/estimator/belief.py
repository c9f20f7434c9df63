"""Steps 1 to 4 of byteclass.py for one request: what a model makes of it, as it stands now."""

from dataclasses import dataclass
from math import sqrt

from extproc.core.estimator.evidence import MAX_BYTES_PER_TOKEN
from extproc.core.estimator.features import Features, structure_tokens
from extproc.core.estimator.residual import Residual
from extproc.core.estimator.served_model import ServedModel

__all__ = ["Belief", "believe"]

OVERHEAD = 4.0
TEMPLATE_TOKENS = 256.0
GRAIN = 0.5


@dataclass(frozen=True, slots=True)
class Belief:
    """The likeliest tokens of a request, its bound, and how they came about.

    `highest` is the physical limit, `residual` the r in the estimate, `doubt` the variance of log(actual / tokens)
    that the prices and the grain of counting leave, `scale` the standard deviation of it all.
    """

    tokens: float
    bound: float
    highest: float
    residual: float
    doubt: float
    scale: float


def believe(
    x: Features, text_bytes: int, model: ServedModel, residual: Residual, prior_prices: Features
) -> Belief:
    """Estimate the tokens of a request with features x, shape (d,), from a model and a category's residual."""
    prices = model.prices.weights
    beside_text = max(structure_tokens(x, prior_prices), structure_tokens(x, prices))
    lowest = max(text_bytes / MAX_BYTES_PER_TOKEN, 1.0)
    highest = text_bytes + OVERHEAD * beside_text + TEMPLATE_TOKENS
    tokens = min(max(model.prices.predict(x) * residual.factor, lowest), highest)
    doubt = model.prices.leverage(x / tokens) + GRAIN / tokens
    scale = sqrt(residual.spread * residual.spread + doubt)
    bound = min(model.bound.above(tokens, scale), highest)
    return Belief(tokens, bound, highest, residual.mean, doubt, scale)
