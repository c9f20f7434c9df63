"""How long responses get: the length that a share epsilon of them exceeds, per model and category.

Needed where the client declares no limit. Lengths go into bins of a quarter octave (a quantile is right within
19 %, on the safe side) whose counts fade. A response that was cut by a limit is a censored sample: it was at least
so long. Kaplan and Meier (1958): in each bin the share that ended there, of all that got so far, is the hazard;
survival is the product of what the hazards leave. So cut responses count for as long as they lasted, and push the
weight to longer bins. Where they reach so far that survival never falls to epsilon, the tail was not seen: the
default is assumed, or twice the longest length if that is more, which sends such requests to a longer pool, where
the tail can be seen.

Rejected: an EMA of the mean plus deviations (lengths are heavy-tailed); dropping cut responses (the long ones
are cut).
"""

from collections.abc import Sequence
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


class OutputLengths:
    """Learned output lengths of at most `max_categories` categories, and of their models."""

    def __init__(self, settings: EstimatorSettings) -> None:
        self._settings = settings
        # Fewer responses than this say nothing of so rare an event.
        self._enough_responses = 1 / settings.output_epsilon
        self._lengths: CappedMap[CategoryKey, _Lengths] = CappedMap(
            settings.max_categories, lambda _: _Lengths(settings.output_epsilon)
        )

    def tokens(self, declared: int | None, category: CategoryKey) -> int:
        """Return the output tokens to count with: as declared (and capped, where that is set), or expected."""
        if declared is None:
            return self.expected(category)
        learned = self.learned(category) if self._settings.cap_output_tokens else None
        return declared if learned is None else min(declared, learned)

    def learned(self, category: CategoryKey) -> int | None:
        """Return the length that a share epsilon of responses exceeds, or None while too few have ended."""
        for key in (category, _model_of(category)):
            lengths = self._lengths.get(key)
            if lengths is not None and lengths.responses >= self._enough_responses and lengths.tail_seen:
                return lengths.exceeded_tokens
        return None

    def expected(self, category: CategoryKey) -> int:
        """Return the learned length; while none is, the default, or twice the longest if that is more."""
        learned = self.learned(category)
        if learned is not None:
            return learned
        lengths = self._lengths.get(_model_of(category))
        default = self._settings.default_output_tokens
        return default if lengths is None else max(default, lengths.exceeded_tokens)

    def mean(self, category: CategoryKey) -> float | None:
        """Return the mean length of a category, or else of its model; None while there are no responses."""
        for key in (category, CategoryKey(category.model, "")):
            lengths = self._lengths.get(key)
            if lengths is not None and lengths.responses:
                return lengths.tokens / lengths.responses
        return None

    def observe(self, category: CategoryKey, tokens: int, *, cut: bool) -> None:
        """Take in the completion tokens of one response; `cut` when a limit ended it."""
        if tokens > 0:
            self._lengths.use(_model_of(category)).learn(tokens, cut=cut)
            self._lengths.use(category).learn(tokens, cut=cut)

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
        self.ended = np.zeros(BINS) if ended is None else ended
        self.cut = np.zeros(BINS) if cut is None else cut
        self.observations = observations
        self.responses = self.tokens = 0.0
        self._found: tuple[int, bool] | None = None
        self._sum_up()

    def learn(self, tokens: int, *, cut: bool) -> None:
        counts = self.cut if cut else self.ended
        position = min(ceil(BINS_PER_OCTAVE * log2(tokens)), BINS - 1)
        self.ended *= FADING
        self.cut *= FADING
        counts[position] += 1
        self.responses = self.responses * FADING + 1
        self.tokens = self.tokens * FADING + float(_LENGTHS_OF_BINS[position])
        self.observations += 1
        self._found = None

    def shift(self, counts: Numbers, observations: int, since: int) -> None:
        kept = FADING ** (self.observations - since)
        self.ended = np.maximum(self.ended + kept * counts[:BINS], 0.0)
        self.cut = np.maximum(self.cut + kept * counts[BINS:], 0.0)
        self.observations = max(self.observations + observations, 0)
        self._sum_up()

    def _sum_up(self) -> None:
        lengths = self.ended + self.cut
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

    def _look(self) -> tuple[int, bool]:
        if self._found is None:
            lengths = self.ended + self.cut
            at_risk = lengths[::-1].cumsum()[::-1]
            hazard = np.divide(self.ended, at_risk, out=np.zeros(BINS), where=self.ended > 0)
            beyond = np.flatnonzero(np.cumprod(1 - hazard) <= self._epsilon)
            unseen = lengths.nonzero()[0][-1] + BINS_PER_OCTAVE if at_risk[0] else 0
            last = int(beyond[0] if beyond.size else unseen)
            self._found = ceil(2 ** (last / BINS_PER_OCTAVE)), beyond.size > 0
        return self._found


Outputs = Sequence[tuple[CategoryKey, _Lengths]]


def states_of(rows: Outputs) -> tuple[OutputState, ...]:
    """Return what is learned of some categories."""
    return tuple(
        OutputState(key, packed(lengths.ended), packed(lengths.cut), lengths.observations) for key, lengths in rows
    )


# The middle of each bin, in tokens.
_LENGTHS_OF_BINS = 2 ** ((np.arange(BINS) - 0.5) / BINS_PER_OCTAVE)


def _model_of(category: CategoryKey) -> CategoryKey:
    return CategoryKey(category.model, "")
