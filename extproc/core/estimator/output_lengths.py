"""How long responses get: the length that a share epsilon of them exceeds, per model and category.

Needed where the client declares no limit. Those who declare one ask other things: their lengths are kept apart,
and stand in for the others' only until there are some of these. Lengths go into bins of a quarter octave (a
quantile is right within 19 %, on the safe side) whose counts fade. A response that was cut by a limit is a
censored sample: it was at least so long. Kaplan and Meier (1958): in each bin the share that ended there, of all
that got so far, is the hazard; survival is the product of what the hazards leave. So cut responses count for as
long as they lasted, and push the weight to longer bins. Where they reach so far that survival never falls to
epsilon, the tail was not seen: the default is assumed, or twice the longest length if that is more, which sends
such requests to a longer pool, where the tail can be seen.

The first responses to come back are the short ones: at 100 requests a second, those that ended within the first
seconds tell of none that takes ten (right truncation: Woodroofe, 1985). How long a response was on its way is told
without a clock, by how many requests came after its own. What was learned is used when RIPE times as many came as
during the longest: so at least half of them had the time to get as long. Until then the default counts, or twice
the longest. That a model has a few responses very much longer than all others is learned when the first comes.

Rejected: an EMA of the mean plus deviations (lengths are heavy-tailed); dropping cut responses (the long ones
are cut); those on their way as censored ones, of which nobody tells whether they will be learned from.
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
# Begins the keys of those who declared a limit: no header, and so no tenant, holds the control character.
DECLARED = "declared\x1f"


class OutputLengths:
    """Learned output lengths of at most `max_categories` categories, and of their models."""

    def __init__(self, settings: EstimatorSettings) -> None:
        self._settings = settings
        self.estimates = 0  # so many have been made: the clock by which responses are on their way
        # Fewer responses than this say nothing of so rare an event.
        self._enough_responses = 1 / settings.output_epsilon
        self._lengths: CappedMap[CategoryKey, _Lengths] = CappedMap(
            settings.max_categories, lambda _: _Lengths(settings.output_epsilon)
        )

    def tokens(self, declared: int | None, category: CategoryKey) -> int:
        """Return the output tokens of one more request: declared (and capped, where that is set), or expected."""
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
        """Return the learned length; while none is, the default, or twice the longest if that is more."""
        learned = self.learned(category)
        if learned is not None:
            return learned
        lengths = self._lengths.get(CategoryKey(category.model, ""))
        default = self._settings.default_output_tokens
        return default if lengths is None else max(default, lengths.twice_the_longest)

    def mean(self, category: CategoryKey, *, declared: bool = False) -> float | None:
        """Return the mean length of a category, or else of its model; None while there are no responses."""
        for key in _keys(category, declared=declared):
            lengths = self._lengths.get(key)
            if lengths is not None and lengths.responses:
                return lengths.tokens / lengths.responses
        return None

    def observe(
        self, category: CategoryKey, tokens: int, *, cut: bool, declared: bool = False, number: int = 0
    ) -> None:
        """Take in the completion tokens of one response; `cut` when a limit ended it.

        `number` is what `estimates` was when its request came, or 0.
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
        """Return what there is to make a state of, by `states_of`."""
        return list(self._lengths)

    def load(self, states: tuple[OutputState, ...]) -> None:
        """Take over what another router learned, all or nothing.

        Raises ConfigurationError for counts in other bins, or that are none.
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
        """Add what others have learned; tell whether that could be done."""
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
    """Fading counts of responses that ended by themselves, and that were cut, in each bin.

    `responses` is how many there are of both, `tokens` what they come to, cut ones as far as they got.

    The quantile is found when it is asked for: most clients declare a limit, and then nobody asks.
    """

    def __init__(
        self,
        epsilon: float,
        ended: Numbers | None = None,
        cut: Numbers | None = None,
        observations: int = 0,
    ) -> None:
        self._epsilon = epsilon
        # In units of the latest response: the counts of all others need not be touched to let them fade.
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
        """Take in that a response came whose request was the one of that number; 0 for one that is not known."""
        number = number or now
        self._first = min(self._first or number, number)
        self._longest_wait = max(self._longest_wait, now - number)

    def is_ripe(self, now: int) -> bool:
        """Tell whether the long responses can have come, too; once they have, or others tell of them, it is."""
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
        """How many ended by themselves, in each bin."""
        return self._ended / self._unit

    @property
    def cut(self) -> Numbers:
        """How many were cut, in each bin."""
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
        """The length that a share epsilon of responses exceeds; twice the longest where the tail was not seen."""
        return self._look()[0]

    @property
    def tail_seen(self) -> bool:
        """Whether so many responses ended by themselves that the quantile is among them."""
        return self._look()[1]

    @property
    def twice_the_longest(self) -> int:
        """Twice the longest length that there was; 1 for none."""
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
    """Return what is learned of some categories."""
    return tuple(
        OutputState(key, packed(lengths.ended), packed(lengths.cut), lengths.observations) for key, lengths in rows
    )


# The middle of each bin, in tokens.
_LENGTHS_OF_BINS = 2 ** ((np.arange(BINS) - 0.5) / BINS_PER_OCTAVE)


@lru_cache(1_024)
def _keys(category: CategoryKey, *, declared: bool) -> tuple[CategoryKey, ...]:
    """Return where to look for lengths: those of the category, of its model, and of the model's other half."""
    model, key = category.model, category.key
    if declared:
        return CategoryKey(model, DECLARED + key), CategoryKey(model, DECLARED), CategoryKey(model, "")
    return category, CategoryKey(model, ""), CategoryKey(model, DECLARED)
