"""Counts of the lengths of responses, and the length that a share epsilon of them exceeds.

Lengths are counted in bins of a quarter octave (so a quantile is accurate to 19 %, on the safe side); the counts
fade. A response that was cut by a limit is a censored sample: its full length is at least what was seen. Kaplan
and Meier (1958): the hazard of a bin is the number of responses that ended in it, divided by the number that got
that far; survival is the product of (1 - hazard) over the bins. So a cut response counts in every bin that it
reached, and moves weight to longer bins. If cut responses reach so far that survival never falls to epsilon, the
tail was not seen, and twice the longest length takes the quantile's place.

The first responses to come back are the short ones: at 100 requests a second, those that ended within the first
seconds say nothing about one that takes ten (right truncation: Woodroofe, 1985). The time that a response was in
flight is measured without a clock, as the number of requests that came after its own. What was learned is used
once RIPE times as many requests have arrived as during the longest response: at least half of their responses have
then had time to get that long. If a few responses of a model are far longer than all others, this is not learned
before the first of them arrives.

Rejected: an EMA of the mean plus deviations (lengths are heavy-tailed); dropping cut responses (the long ones are
cut); counting responses in flight as censored (it is not known whether they will ever be learned from).
"""

from math import ceil, log2

import numpy as np

from extproc.core.estimator.packing import Numbers

__all__ = ["BINS", "FADING", "LengthCounts"]

BINS_PER_OCTAVE = 4
MOST_TOKENS = 1 << 20
BINS = 20 * BINS_PER_OCTAVE + 1  # up to MOST_TOKENS
FADING = 0.9995
RIPE = 2
MOST_UNIT = 1e12


class LengthCounts:
    """Fading counts, by bin, of responses that ended by themselves and of those that were cut.

    `responses` is the faded number of both; `tokens` is the faded sum of their lengths, where a cut response
    counts with the length that it reached.

    The quantile is computed on demand: most clients declare a limit, and then it is never needed.
    """

    def __init__(
        self,
        epsilon: float,
        ended: Numbers | None = None,
        cut: Numbers | None = None,
        observations: int = 0,
    ) -> None:
        self._epsilon = epsilon
        # Instead of multiplying all older counts by FADING, each new response adds more (`_unit`) than the last.
        self._ended = np.zeros(BINS) if ended is None else ended
        self._cut = np.zeros(BINS) if cut is None else cut
        self._unit = 1.0
        self.observations = observations
        self.responses = self.tokens = 0.0
        self._first = self._longest_wait = 0
        self._ripe = observations > 0
        self._found: tuple[int, bool] | None = None
        self._sum_up()

    def learn(self, tokens: int, *, cut: bool, weight: float = 1.0) -> None:
        """Take in the length of one response; `cut` says that a limit ended it.

        It counts as a part `weight` of a response; older ones fade as after any other.
        """
        position = ceil(BINS_PER_OCTAVE * log2(tokens)) if tokens < MOST_TOKENS else BINS - 1
        self._unit /= FADING
        (self._cut if cut else self._ended)[position] += weight * self._unit
        if self._unit > MOST_UNIT:
            self._settle()
        self.responses = self.responses * FADING + weight
        self.tokens = self.tokens * FADING + weight * _TOKENS_OF_BINS[position]
        self.observations += 1
        self._found = None

    def wait(self, number: int, now: int) -> None:
        """Record that request `number` (0: unknown) got its response when request `now` was the latest."""
        number = number or now
        wait_requests, first = now - number, self._first or number
        self._first = number if number < first else first
        self._longest_wait = wait_requests if wait_requests > self._longest_wait else self._longest_wait

    def is_ripe(self, now: int) -> bool:
        """Return whether long responses have had time to arrive.

        Once true, it stays true. It is also true for loaded counts, and after others added more responses than
        its own.
        """
        self._ripe = self._ripe or now - self._first >= RIPE * self._longest_wait
        return self._ripe

    def shift(self, counts: Numbers, observations: int, since: int) -> None:
        """Add what others learned from `observations` responses; it is as old as our response number `since`."""
        self._settle()
        kept = FADING ** (self.observations - since)
        self._ended = np.maximum(self._ended + kept * counts[:BINS], 0.0)
        self._cut = np.maximum(self._cut + kept * counts[BINS:], 0.0)
        self._ripe = self._ripe or observations > self.observations
        self.observations = max(self.observations + observations, 0)
        self._sum_up()

    @property
    def ended(self) -> Numbers:
        """The number of responses that ended by themselves, by bin."""
        return self._ended / self._unit

    @property
    def cut(self) -> Numbers:
        """The number of responses that were cut, by bin."""
        return self._cut / self._unit

    def _settle(self) -> None:
        self._ended /= self._unit
        self._cut /= self._unit
        self._unit = 1.0

    def _sum_up(self) -> None:
        lengths = self._ended + self._cut
        self.responses = float(lengths.sum())  # faded
        self.tokens = float(lengths.dot(_LENGTHS_OF_BINS))
        self._found = None

    @property
    def exceeded_tokens(self) -> int:
        """The length that a share epsilon of responses exceeds; twice the longest if the tail was not seen."""
        return self._look()[0]

    @property
    def tail_seen(self) -> bool:
        """Whether enough responses ended by themselves for the quantile to be among them."""
        return self._look()[1]

    @property
    def twice_the_longest(self) -> int:
        """Twice the longest length so far; 1 if there is none."""
        seen = (self._ended + self._cut).nonzero()[0]
        return ceil(2 ** ((seen[-1] + BINS_PER_OCTAVE) / BINS_PER_OCTAVE)) if seen.size else 1

    def _look(self) -> tuple[int, bool]:
        if self._found is None:
            at_risk = (self._ended + self._cut)[::-1].cumsum()[::-1]
            hazard = np.divide(self._ended, at_risk, out=np.zeros(BINS), where=self._ended > 0)
            beyond = np.flatnonzero(np.cumprod(1 - hazard) <= self._epsilon)
            seen = beyond.size > 0
            self._found = ceil(2 ** (int(beyond[0]) / BINS_PER_OCTAVE)) if seen else self.twice_the_longest, seen
        return self._found


# The middle of each bin, in tokens.
_LENGTHS_OF_BINS = 2 ** ((np.arange(BINS) - 0.5) / BINS_PER_OCTAVE)
_TOKENS_OF_BINS: list[float] = _LENGTHS_OF_BINS.tolist()
