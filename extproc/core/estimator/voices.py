"""How much one source counts for all: each response is split between what is shared and what is the source's own.

The problem. Prices, scale and q are the same for everybody who uses a model. One client that sends gibberish, or
sits behind a counter that reports twice the tokens, moves them for everybody: with a tenth of the traffic, its
doubled usage sent 20 times as many of the other clients' requests past the pool that would have held them.

The idea. With p the share that a source (sources.py) has in about the last WINDOW responses of a model, its
response counts in everything that is shared as

    w = min(1, o / mean of o)        o = min(1, FAIR_SHARE / p)

so a source counts in total as FAIR_SHARE of the traffic, unless others are held back, too: the mean of o over
responses is what a response counts on average. Of four equal sources none is held back, and a single source is the
whole deployment: w = 1. The part that is held back, 1 - w, teaches the source's own parameters: a deviation r'
added to the residual r of its category, its spread, and a q' added to q (a tenant given by a header is a category,
so it has a residual of its own anyway):

    estimate = priced x exp(r + r')      bound = estimate x exp((q + q') s)

Each of these moves by 1 - w of a step where the shared one moves by w; a share w of the scores moves q, the others
move q'. So the promise also holds for that source, and its own deviation affects nobody else: prices take in k /
exp(r') instead of k. Everything shared is a sum over responses, now with weights, so what replicas learn adds up
as before. A source's own parameters belong to one process.

Space is bounded: the last MOST_SOURCES sources are kept, a few numbers each. Output lengths have shares of their
own (output_lengths.py).

Prior art: bounding the influence of a point by how unusual it is (Krasker and Welsch, 1982), here by its source;
random effects, so that the many rows of one group do not move the mean (Laird and Ware, 1982). Rejected, with
figures in docs/estimator.md: shares of 2 and 5 %; prices that take in k.
"""

from collections import OrderedDict
from math import sqrt

from extproc.core.estimator.bound import AdaptiveBound
from extproc.core.estimator.residual import Residual

__all__ = ["SMALL", "Voice", "Voices"]

FAIR_SHARE = 0.01
WINDOW = 200.0  # responses
MOST_SOURCES = 256
HELD_BACK = 0.9  # below this weight a source has its own deviation


class Voice:
    """One source of one model's responses: `weight` is w of its last response, `q` is its bound's q'."""

    __slots__ = ("at", "count", "credit", "own", "q", "weight")

    def __init__(self) -> None:
        self.count = 0.0
        self.at = 0
        self.weight = 1.0
        self.q = 0.0
        self.credit = 0.5
        self.own: Residual | None = None

    @property
    def deviation(self) -> float:
        """How much its requests deviate from those of their category: a natural logarithm."""
        return 0.0 if self.own is None else self.own.mean

    def adjusted(self, residual: Residual) -> Residual:
        """Return a category's residual as it applies to this source."""
        own, weight = self.own, self.weight
        if own is None:
            return residual
        spread = sqrt(weight * residual.spread * residual.spread + (1 - weight) * own.spread * own.spread)
        return Residual(residual.mean + own.mean, spread, residual.bytes_per_token, own.responses)

    def learn(self, error: float, doubt: float, residual: Residual, *, move_mean: bool) -> None:
        """Take in the log error of a response in a category with this residual."""
        if self.own is None:
            if self.weight >= HELD_BACK:
                return
            self.own = Residual(0.0, residual.spread)
        self.own.learn(error + self.own.mean, doubt, 0.0, move_mean=move_mean, weight=1 - self.weight)

    def score(self, bound: AdaptiveBound, score: float) -> None:
        """Take in an error in multiples of the scale: a share w of the scores moves q, the others move q'.

        Each score moves only one of the two, since replicas replay each other's scores (agreeing.py). q + q' stays
        at least 0.
        """
        self.credit += self.weight
        if self.credit >= 1:
            self.credit -= 1
            bound.observe(score - self.q)
        else:
            self.q = max(self.q + bound.step(score - self.q), -bound.q)


SMALL = Voice()
"""A source not seen before: it has no parameters of its own, and counts in full."""


class Voices:
    """The sources of a model's recent responses: `known`, by the source's hash.

    `window` is about the number of responses that shares are measured over.
    """

    def __init__(self, fair_share: float = FAIR_SHARE, window: float = WINDOW) -> None:
        self.known: OrderedDict[int, Voice] = OrderedDict()
        self._fair_share = fair_share
        self._kept = 1 - 1 / window  # share of a count that is kept with each response
        self._responses = 0
        self._counted = 0.0  # the number of responses, faded like the count of a source
        self._mean = 0.0

    def forget(self) -> None:
        """Drop each source's own parameters, since what they were relative to is gone; keep the traffic shares."""
        for voice in self.known.values():
            voice.own, voice.q = None, 0.0

    def observe(self, source: int) -> Voice:
        """Count a response; return its source, with the weight of this response."""
        self._responses = now = self._responses + 1
        known, kept = self.known, self._kept
        voice = known.get(source)
        if voice is None:
            voice = known[source] = Voice()
            if len(known) > MOST_SOURCES:
                known.popitem(last=False)
        known.move_to_end(source)
        voice.count = count = 1 + voice.count * kept ** (now - voice.at)
        voice.at = now
        self._counted = counted = 1 + self._counted * kept
        fair, mean = self._fair_share * counted, self._mean
        counts = fair / count if fair < count else 1.0
        self._mean = mean = mean + (counts - mean) / counted
        voice.weight = counts / mean if counts < mean else 1.0
        return voice

    def is_one_of_several(self, voice: Voice) -> bool:
        """Return whether a source was seen before, and there are others: it may differ from what is shared."""
        return 1 < voice.count < (1 - self._fair_share) * self._counted
