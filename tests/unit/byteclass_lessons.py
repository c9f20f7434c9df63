"""Requests and responses with which the tests teach a byte-class estimator."""

import numpy as np
from msgspec.structs import replace

from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.features import Features
from extproc.core.estimator.protocol import Estimate
from extproc.core.estimator.text import TEXT_FEATURES
from extproc.core.facts import Api, RequestFacts
from extproc.core.usage import Usage

__all__ = ["WORDS", "facts", "structure_tokens", "teach"]

WORDS = b"the quick brown fox jumps over the lazy dog while 12 other animals (mostly cats) watch from far away; "


def facts(text: bytes, **others: object) -> RequestFacts:
    """Return the facts of a chat with this text."""
    return replace(RequestFacts(Api.CHAT, "m", text, messages=1), **others)


def structure_tokens(x: Features, prices: Features) -> float:
    """Return what a request costs in addition to its text at the given prices, in tokens."""
    return float(x[TEXT_FEATURES:].dot(prices[TEXT_FEATURES:]))


def teach(estimator: ByteClassEstimator, count: int, ratio: float = 4.0, seed: int = 0) -> Estimate:
    """Teach an estimator responses of prose at this many bytes per token; return the last estimate."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        start, size = rng.integers(0, 50), int(rng.integers(200, 4_000))
        text = (WORDS * 42)[start : start + size]
        estimate = estimator.estimate(facts(text), "")
        estimator.observe(estimate, Usage(max(1, round(len(text) / ratio * rng.normal(1, 0.03)))))
    return estimate
