"""Prices of text fitted to tokenizers: where the prior comes from, and what it would be without one of them."""

from collections.abc import Iterable, Sequence

import numpy as np

from extproc.core.estimator.features import Features, features
from extproc.core.estimator.least_squares import RelativeLeastSquares
from extproc.core.estimator.prices import Prior, prior
from extproc.core.estimator.settings import MediaTokens
from extproc.core.estimator.text import TEXT_FEATURES, look
from extproc.evaluation.requests import Request

__all__ = ["fitted_prices"]


def fitted_prices(streams: Sequence[Iterable[Request]]) -> Features:
    """Return the mean of the prices that fit each stream (one for each tokenizer), from no prior to speak of."""
    prices = [_fit(stream) for stream in streams]
    mean: Features = np.mean(prices, axis=0)
    return mean


def _fit(stream: Iterable[Request]) -> Features:
    """Fit one stream. Classes that are not in it stay at the shipped prior, give or take one token."""
    shipped = prior(MediaTokens()).mean
    model = RelativeLeastSquares(Prior(shipped, np.eye(shipped.size)), forgetting=1.0)
    for request in stream:
        model.learn(features(request.facts, look(request.facts.text)), request.tokens)
    return model.weights[:TEXT_FEATURES]
