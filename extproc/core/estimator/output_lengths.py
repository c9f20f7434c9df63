"""Lengths of responses: the length that a share epsilon of them exceeds, per model and category.

Needed if the client declares no limit. Clients that declare one send different requests, so their lengths are
stored separately, and are used for the other requests only until those have some of their own. Lengths are counted
in bins of a quarter octave (so a quantile is accurate to 19 %, on the safe side); the counts fade. A response that
was cut by a limit is a censored sample: its full length is at least what was seen. Kaplan and Meier (1958): in
each bin the hazard is the share of the responses that ended there, of all those that got that far; survival is the
product of (1 - hazard) over the bins. So cut responses count for as long as they lasted, and move weight to longer
bins. If they reach so far that survival never falls to epsilon, the tail was not seen: then the default is
assumed, or twice the longest length if that is more, which sends such requests to a pool with a longer context,
where the tail can be seen.

The first responses to come back are the short ones: at 100 requests a second, those that ended within the first
seconds say nothing about one that takes ten (right truncation: Woodroofe, 1985). The time that a response was in
flight is measured without a clock, as the number of requests that came after its own. What was learned is used
when RIPE times as many requests have come as during the longest response: at least half of them then had the time
to get that long. Until then the default applies, or twice the longest. If a few responses of a model are very much
longer than all others, this is learned when the first of them arrives.

Rejected: an EMA of the mean plus deviations (lengths are heavy-tailed); dropping cut responses (the long ones are
cut); counting responses in flight as censored (it is not known whether they will ever be learned from).
"""

from collections.abc import Sequence
from functools import lru_cache
from math import ceil, log2

import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.categories import CappedMap
from extproc.core.estimator.change import RowChange
from extproc.core.estimator.packing import DOUBLE_BYTES, Numbers, packed, unpacked
from extproc.core.estimator.protocol import CategoryKey, OutputState
from extproc.core.estimator.settings import EstimatorSettings

__all__ = ["FADING", "OutputLengths", "Outputs", "states_of"]

BINS_PER_OCTAVE = 4
BINS = 20 * BINS_PER_OCTAVE + 1  # up to a million tokens
FADING = 0.9995
RIPE = 2
MOST_UNIT = 1e12
# Prefix of the keys for declared limits: no header, and so no tenant, contains this control character.
DECLARED = "declared\x1f"


class OutputLengths:
    """Learned output lengths of at most `max_categories` categories, including one per model."""

    def __init__(self, settings: EstimatorSettings) -> None:
        self._settings = settings
        self.estimates = 0  # number of estimates so far: the clock for responses in flight
        # Fewer responses than this say nothing about an event this rare.
        self._enough_responses = 1 / settings.output_epsilon
        self._lengths: CappedMap[CategoryKey, _Lengths] = CappedMap(
            settings.max_categories, lambda _: _Lengths(settings.output_epsilon)
        )

    def tokens(self, declared: int | None, category: CategoryKey) -> int:
        """Count one more request; return its output tokens: declared (and capped, if configured), or expected."""
        self.estimates += 1
        if declared is None:
            return self.expected(category)
        learned = self.learned(category, declared=True) if self._settings.cap_output_tokens else None
        return declared if learned is None else min(declared, learned)

    def learned(self, category: CategoryKey, *, declared: bool = False) -> int | None:
        """Return the length that a share epsilon of responses exceeds, or None while too few have ended."""
        for key in _keys(category, declared=declared):
            lengths = self._lengths.get(key)
            if lengths is not None and self._is_known(lengths):
                return lengths.exceeded_tokens
        return None

    def expected(self, category: CategoryKey) -> int:
        """Return the learned length; without one, the default, or twice the longest length if that is more."""
        learned = self.learned(category)
        if learned is not None:
            return learned
        lengths = self._lengths.get(CategoryKey(category.model, ""))
        default = self._settings.default_output_tokens
        return default if lengths is None else max(default, lengths.twice_the_longest)

    def mean(self, category: CategoryKey, *, declared: bool = False) -> float | None:
        """Return the mean length of a category, or of its model; None while there are no responses."""
        for key in _keys(category, declared=declared):
            lengths = self._lengths.get(key)
            if lengths is not None and lengths.responses:
                return lengths.tokens / lengths.responses
        return None

    def observe(
        self, category: CategoryKey, tokens: int, *, cut: bool, declared: bool = False, number: int = 0
    ) -> None:
        """Take in the completion tokens of one response; `cut` says that a limit ended it.

        `number` is the value of `estimates` when its request came, or 0.
        """
        if tokens <= 0:
            return
        of_category, of_model, *_ = _keys(category, declared=declared)
        for key in (of_model, of_category):
            self._lengths.use(key).learn(tokens, cut=cut)
            self._lengths.use(key).wait(number, self.estimates)

    def _is_known(self, lengths: "_Lengths") -> bool:
        if lengths.responses < self._enough_responses or not lengths.tail_seen:
            return False
        return lengths.is_ripe(self.estimates)

    def state(self) -> tuple[OutputState, ...]:
        """Return what is learned."""
        return states_of(self.rows())

    def rows(self) -> "Outputs":
        """Return the rows that `states_of` makes a state from."""
        return list(self._lengths)

    def load(self, states: tuple[OutputState, ...]) -> None:
        """Load what another router learned, all or nothing.

        Raises ConfigurationError for counts in other bins, and for counts that are negative or not finite.
        """
        loaded = []
        for state in states:
            if {len(state.ended), len(state.cut)} != {BINS * DOUBLE_BYTES}:
                bins = len(state.ended) / DOUBLE_BYTES, len(state.cut) / DOUBLE_BYTES
                raise ConfigurationError(
                    f"learned output lengths have {bins[0]:g} and {bins[1]:g} bins, not {BINS}"
                )
            ended, cut = unpacked(state.ended).copy(), unpacked(state.cut).copy()
            if not (np.isfinite(ended + cut).all() and min(ended.min(), cut.min()) >= 0):
                raise ConfigurationError(f"learned output lengths of model {state.category.model!r} are no counts")
            lengths = _Lengths(self._settings.output_epsilon, ended, cut, state.observations)
            loaded.append((state.category, lengths))
        for category, lengths in loaded:
            self._lengths.put(category, lengths)

    def shift(self, change: RowChange) -> bool:
        """Add what others learned; return whether that could be done."""
        lengths = self._lengths.get(change.key)
        if lengths is None:
            if change.since or len(self._lengths) >= self._settings.max_categories:
                return False
            lengths = self._lengths.use(change.key)
        elif lengths.observations < change.since:
            return False
        lengths.shift(change.values, change.responses, change.since)
        return True


class _Lengths:
    """Fading counts, by bin, of responses that ended by themselves and of those that were cut.

    `responses` is the faded number of both; `tokens` is the sum of their lengths, of cut ones as far as they got.

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
        # In units of the latest response: older counts fade without being modified.
        self._ended = np.zeros(BINS) if ended is None else ended
        self._cut = np.zeros(BINS) if cut is None else cut
        self._unit = 1.0
        self.observations = observations
        self.responses = self.tokens = 0.0
        self._first = self._longest_wait = 0
        self._ripe = observations > 0
        self._found: tuple[int, bool] | None = None
        self._sum_up()

    def learn(self, tokens: int, *, cut: bool) -> None:
        position = min(ceil(BINS_PER_OCTAVE * log2(tokens)), BINS - 1)
        self._unit /= FADING
        (self._cut if cut else self._ended)[position] += self._unit
        if self._unit > MOST_UNIT:
            self._settle()
        self.responses = self.responses * FADING + 1
        self.tokens = self.tokens * FADING + float(_LENGTHS_OF_BINS[position])
        self.observations += 1
        self._found = None

    def wait(self, number: int, now: int) -> None:
        """Take in the arrival of the response to the request with this number; 0 if that is not known."""
        number = number or now
        self._first = min(self._first or number, number)
        self._longest_wait = max(self._longest_wait, now - number)

    def is_ripe(self, now: int) -> bool:
        """Return whether long responses had the time to arrive; from then on, or once shared, it stays true."""
        self._ripe = self._ripe or now - self._first >= RIPE * self._longest_wait
        return self._ripe

    def shift(self, counts: Numbers, observations: int, since: int) -> None:
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


Outputs = Sequence[tuple[CategoryKey, _Lengths]]


def states_of(rows: Outputs) -> tuple[OutputState, ...]:
    """Return what is learned about some categories."""
    return tuple(
        OutputState(key, packed(lengths.ended), packed(lengths.cut), lengths.observations) for key, lengths in rows
    )


# The middle of each bin, in tokens.
_LENGTHS_OF_BINS = 2 ** ((np.arange(BINS) - 0.5) / BINS_PER_OCTAVE)


@lru_cache(1_024)
def _keys(category: CategoryKey, *, declared: bool) -> tuple[CategoryKey, ...]:
    """Return where to look up lengths: the category, its model, then the model's other half (declared or not)."""
    model, key = category.model, category.key
    if declared:
        return CategoryKey(model, DECLARED + key), CategoryKey(model, DECLARED), CategoryKey(model, "")
    return category, CategoryKey(model, ""), CategoryKey(model, DECLARED)
