"""Lengths of responses: the length that a share epsilon of them exceeds, per model and category.

They are needed if the client declares no limit. Clients that declare one send different requests, so their lengths
are stored separately, and are used for requests without a limit only until those have lengths of their own.
length_counts.py describes how lengths are counted, and when their counts can be trusted. Until then the default
applies, or twice the longest length if that is more, which sends such requests to a pool with a longer context,
where the tail can be seen.

A client with long responses and more than a share epsilon of the traffic would decide the length for all others.
So each response counts by the fair share of its source, measured over the responses of its row (voices.py). That
share has to be smaller than epsilon: it is an eighth. If there are several sources, each that comes again has
lengths of its own, which belong to this process and are used once there are enough; a tenant has them anyway.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.categories import CappedMap
from extproc.core.estimator.change import RESERVED, RowChange
from extproc.core.estimator.length_counts import BINS, LengthCounts
from extproc.core.estimator.packing import DOUBLE_BYTES, packed, unpacked
from extproc.core.estimator.protocol import CategoryKey, OutputState
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.sources import MOST_NUMBER
from extproc.core.estimator.voices import Voices

__all__ = ["OutputLengths", "Outputs", "states_of"]

# Prefix of the keys for declared limits.
DECLARED = "declared" + RESERVED
# For so many categories the sources are known: each has up to 256, which take 60 KB.
MOST_WITH_SOURCES = 256
# So many sources together count as a share epsilon of the responses, if there are enough others.
SOURCES_WITHIN_EPSILON = 8
# Where the numbers of estimates begin. Through the access log come responses to requests that other processes
# estimated, too, whose numbers say nothing here: they begin elsewhere, as hash() differs from process to process
# (unless PYTHONHASHSEED is set).
FIRST = hash("estimates") & MOST_NUMBER


class OutputLengths:
    """Learned output lengths of at most `max_categories` categories; each model as a whole is a category, too."""

    def __init__(self, settings: EstimatorSettings) -> None:
        self._settings = settings
        self.estimates = FIRST  # and one more for each estimate: the clock for responses in flight
        self.number = FIRST  # of the last estimate, as the access log has room for it: 0 after MOST_NUMBER
        # Fewer responses than this say nothing about an event of probability epsilon.
        self._enough_responses = 1 / settings.output_epsilon
        self._lengths: CappedMap[CategoryKey, LengthCounts] = CappedMap(
            settings.max_categories, lambda _: LengthCounts(settings.output_epsilon)
        )
        self._own: CappedMap[tuple[CategoryKey, int], LengthCounts] = CappedMap(
            settings.max_categories, lambda _: LengthCounts(settings.output_epsilon)
        )
        fair_share = settings.output_epsilon / SOURCES_WITHIN_EPSILON
        self._voices: CappedMap[CategoryKey, Voices] = CappedMap(
            min(settings.max_categories, MOST_WITH_SOURCES), lambda _: Voices(fair_share, 1 / fair_share)
        )

    def tokens(self, declared: int | None, category: CategoryKey, source: int = 0) -> int:
        """Count one more request; return its output tokens: declared (and capped, if configured), or expected."""
        self.estimates += 1
        self.number = self.estimates & MOST_NUMBER
        if declared is None:
            return self.expected(category, source)
        learned = self.learned(category, source, declared=True) if self._settings.cap_output_tokens else None
        return declared if learned is None else min(declared, learned)

    def learned(self, category: CategoryKey, source: int = 0, *, declared: bool = False) -> int | None:
        """Return the length that a share epsilon of responses exceeds, or None while too few have ended."""
        keys = _keys(category, declared=declared)
        for lengths in (self._own.get((keys[0], source)), *map(self._lengths.get, keys)):
            if lengths is not None and self._is_known(lengths):
                return lengths.exceeded_tokens
        return None

    def expected(self, category: CategoryKey, source: int = 0) -> int:
        """Return the learned length; without one, the default, or twice the longest length if that is more."""
        learned = self.learned(category, source)
        if learned is not None:
            return learned
        lengths = self._lengths.get(CategoryKey(category.model, ""))
        default = self._settings.default_output_tokens
        return default if lengths is None else max(default, lengths.twice_the_longest)

    def mean(self, category: CategoryKey, source: int = 0, *, declared: bool = False) -> float | None:
        """Return the mean length of a source, its category, or its model; None while there are no responses."""
        keys = _keys(category, declared=declared)
        for lengths in (self._own.get((keys[0], source)), *map(self._lengths.get, keys)):
            if lengths is not None and lengths.responses:
                return lengths.tokens / lengths.responses
        return None

    def observe(
        self,
        category: CategoryKey,
        tokens: int,
        *,
        cut: bool,
        declared: bool = False,
        number: int = 0,
        source: int = 0,
    ) -> None:
        """Take in the completion tokens of one response; `cut` says that a limit ended it.

        `number` is what `number` was when its request came, or 0; `source` identifies the sender (sources.py).
        """
        if tokens <= 0:
            return
        # What `estimates` was when the request came; 0 if no request of that number came to this process.
        since = (self.estimates - number) & MOST_NUMBER
        at = self.estimates - since if number and since < self.estimates - FIRST else 0
        of_category, of_model, *_ = _keys(category, declared=declared)
        for key in (of_model, of_category):
            voices, lengths = self._voices.use(key), self._lengths.use(key)
            voice = voices.observe(source)
            lengths.learn(tokens, cut=cut, weight=voice.weight)
            lengths.wait(at, self.estimates)
        if voices.is_one_of_several(voice):
            own = self._own.use((of_category, source))
            own.learn(tokens, cut=cut)
            own.wait(at, self.estimates)

    def _is_known(self, lengths: LengthCounts) -> bool:
        if lengths.responses < self._enough_responses or not lengths.tail_seen:
            return False
        return lengths.is_ripe(self.estimates)

    def rows(self) -> "Outputs":
        """Return the rows that `states_of` converts."""
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
                raise ConfigurationError(
                    f"learned output lengths of model {state.category.model!r} are not valid counts"
                )
            lengths = LengthCounts(self._settings.output_epsilon, ended, cut, state.observations)
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


Outputs = Sequence[tuple[CategoryKey, LengthCounts]]


def states_of(rows: Outputs) -> tuple[OutputState, ...]:
    """Return what is learned about some categories."""
    return tuple(
        OutputState(key, packed(lengths.ended), packed(lengths.cut), lengths.observations) for key, lengths in rows
    )


@lru_cache(1_024)
def _keys(category: CategoryKey, *, declared: bool) -> tuple[CategoryKey, ...]:
    """Return the keys to try, in order: the category, its model, and its model with the opposite of `declared`."""
    model, key = category.model, category.key
    if declared:
        return CategoryKey(model, DECLARED + key), CategoryKey(model, DECLARED), CategoryKey(model, "")
    return category, CategoryKey(model, ""), CategoryKey(model, DECLARED)
