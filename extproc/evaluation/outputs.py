"""Output lengths without declared limits: how often a response is longer than the router assumed.

Requests arrive as a Poisson process. A response takes FIRST_S plus SECONDS_PER_TOKEN for each of its tokens, and
is learned from when it ends, so that short responses are learned first.
"""

from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from extproc.core.estimator.output_lengths import OutputLengths
from extproc.core.estimator.protocol import CategoryKey
from extproc.core.estimator.settings import EstimatorSettings
from extproc.evaluation.requests import Lengths

__all__ = ["OutputFigures", "count_outputs"]

REQUESTS = 8_000
REQUESTS_PER_S = 100.0
FIRST_S, SECONDS_PER_TOKEN = 0.5, 0.02
CATEGORY = CategoryKey("model", "latin")


@dataclass(frozen=True, slots=True)
class OutputFigures:
    """The share of responses longer than assumed, and the mean length assumed divided by the actual mean."""

    exceeded: float
    assumed_ratio: float


def count_outputs(lengths: Lengths, seed: int) -> OutputFigures:
    """Run a stream of lengths drawn from a trace."""
    rng = np.random.default_rng(seed)
    outputs = rng.choice([output for _, output in lengths], REQUESTS)
    arrivals = rng.exponential(1 / REQUESTS_PER_S, REQUESTS).cumsum().tolist()
    learned = OutputLengths(EstimatorSettings())
    in_flight: list[tuple[float, int, int]] = []
    assumed = []
    for arrival, tokens in zip(arrivals, outputs.tolist(), strict=True):
        while in_flight and in_flight[0][0] <= arrival:
            _, length, number = heappop(in_flight)
            learned.observe(CATEGORY, length, cut=False, number=number)
        assumed.append(learned.tokens(None, CATEGORY))
        heappush(in_flight, (arrival + FIRST_S + SECONDS_PER_TOKEN * tokens, tokens, learned.number))
    return OutputFigures(float((outputs > assumed).mean()), float(np.mean(assumed) / outputs.mean()))
