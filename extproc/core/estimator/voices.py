"""How far one source speaks for all: a response has a share in what is common, and the rest in what is its own.

The problem. Prices, scale and q are one for all who use a model. One client with gibberish, or behind a counter
that tells twice the tokens, moves them for everybody: as a tenth of the traffic, its doubled usage sent 20 times
as many of the others' requests past the pool that would have held them.

The idea. With p the share that a source (sources.py) has in the last WINDOW responses or so of a model, its
response counts in all that is shared

    w = min(1, o / mean of o)        o = min(1, FAIR_SHARE / p)

so that all that a source says counts as FAIR_SHARE of the traffic, unless the others are held back, too: the mean
of o over responses is what responses count on average. Of four equal sources none is held back, and where there
is only one, it is the deployment: w = 1. What is held back, 1 - w, goes into what is the source's own: a deviation
r' beside the residual r of its category, its spread, and a q' beside q (a tenant that is told is a category, so it
has its own residual anyway):

    estimate = priced x exp(r + r')      bound = estimate x exp((q + q') s)

each moved by 1 - w of a step where the shared one is moved by w; q hears a share w of the scores, q' the others.
So the promise holds for that source as well, and what is its own deviation is told to nobody: prices take in k /
exp(r'), rather than k. All that is shared is a sum over responses, now with weights, so what replicas learn adds
up as before. What is a source's own is of one process.

Space is bounded: the MOST_SOURCES heard last are kept, a few numbers each.

Prior art: the influence of a point is bounded by how unlike it is (Krasker and Welsch, 1982), here by whom it
comes from; random effects, so that the many rows of one group do not move the mean (Laird and Ware, 1982).
Rejected, with figures in docs/estimator.md: shares of 2 and 5 %; prices that take in k.
"""

from collections import OrderedDict
from math import sqrt

from extproc.core.estimator.bound import AdaptiveBound
from extproc.core.estimator.residual import Residual

__all__ = ["SMALL", "Voice", "Voices"]

FAIR_SHARE = 0.01
KEPT = 0.995  # of a count from one response to the next
WINDOW = 1 / (1 - KEPT)
MOST_SOURCES = 256
HELD_BACK = 0.9  # below this weight a source has a deviation of its own


class Voice:
    """One source of one model's responses: `weight` is w of its last one, `q` what its bound has beside q."""

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
        """What its requests deviate by from those of their category: a natural logarithm."""
        return 0.0 if self.own is None else self.own.mean

    def beside(self, residual: Residual) -> Residual:
        """Return a category's residual as it is for this source."""
        own, weight = self.own, self.weight
        if own is None:
            return residual
        spread = sqrt(weight * residual.spread * residual.spread + (1 - weight) * own.spread * own.spread)
        return Residual(residual.mean + own.mean, spread, residual.bytes_per_token, own.responses)

    def learn(self, error: float, doubt: float, residual: Residual, *, move_mean: bool) -> None:
        """Take in the log error of a response, beside a category of this residual."""
        if self.own is None:
            if self.weight >= HELD_BACK:
                return
            self.own = Residual(0.0, residual.spread)
        self.own.learn(error + self.own.mean, doubt, 0.0, move_mean=move_mean, weight=1 - self.weight)

    def score(self, bound: AdaptiveBound, score: float) -> None:
        """Take in how many scales an error came to: a share w of the scores move q, the others q'.

        Whole scores, since replicas follow each other's (agreeing.py). q + q' stays above 0.
        """
        self.credit += self.weight
        if self.credit >= 1:
            self.credit -= 1
            bound.observe(score - self.q)
        else:
            self.q = max(self.q + bound.step(score - self.q), -bound.q)


SMALL = Voice()
"""A source that was not heard of: it has nothing of its own, and counts as much as any."""


class Voices:
    """The sources that a model's responses came from lately: `known`, by what tells them apart."""

    def __init__(self) -> None:
        self.known: OrderedDict[int, Voice] = OrderedDict()
        self._responses = 0
        self._mean = 0.0

    def forget(self) -> None:
        """Drop what is each source's own, which was beside what is no more; how much it sends stays known."""
        for voice in self.known.values():
            voice.own, voice.q = None, 0.0

    def hear(self, source: int) -> Voice:
        """Count a response; return its source, with the weight of this response."""
        self._responses += 1
        voice = self.known.get(source)
        if voice is None:
            voice = self.known[source] = Voice()
            if len(self.known) > MOST_SOURCES:
                self.known.popitem(last=False)
        self.known.move_to_end(source)
        voice.count = 1 + voice.count * KEPT ** (self._responses - voice.at)
        voice.at = self._responses
        heard = (1 - KEPT**self._responses) * WINDOW
        counts = min(1.0, FAIR_SHARE * heard / voice.count)
        self._mean += (counts - self._mean) / heard
        voice.weight = min(1.0, counts / self._mean)
        return voice
