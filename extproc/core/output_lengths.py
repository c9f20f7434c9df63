"""How long answers get: the length that a share epsilon of them exceeds, per model and category.

Needed where the client declares no limit. Lengths go into bins of a quarter octave (a quantile is right within
19 %, on the safe side) whose counts fade. An answer that was cut by a limit is a censored sample: it was at least
so long. Kaplan and Meier (1958): in each bin the share that ended there, of all that got so far, is the hazard;
survival is the product of what the hazards leave. So cut answers count for as long as they lasted, and push the
weight to longer bins. Where they reach so far that survival never falls to epsilon, the tail was not seen: twice
the longest length is assumed, which sends such requests to a longer pool, where the tail can be seen.

Rejected: an EMA of the mean plus deviations (lengths are heavy-tailed); dropping cut answers (it is the long ones
that are cut).
"""

from math import ceil, log2

import numpy as np
import numpy.typing as npt

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.categories import CappedMap
from extproc.core.estimator.protocol import CategoryKey, OutputState
from extproc.core.usage import Usage

__all__ = ["OutputLengths", "truncated_by_pool"]

BINS_PER_OCTAVE = 4
BINS = 20 * BINS_PER_OCTAVE + 1  # up to a million tokens
FADING = 0.9995


class OutputLengths:
    """Learned output lengths of at most `max_categories` categories, and of their models."""

    def __init__(self, epsilon: float, default_tokens: int, max_categories: int) -> None:
        self._epsilon = epsilon
        self._default_tokens = default_tokens
        # Fewer answers than this say nothing of so rare an event.
        self._enough_answers = 1 / epsilon
        self._lengths: CappedMap[CategoryKey, _Lengths] = CappedMap(max_categories, lambda _: _Lengths(epsilon))

    def learned(self, category: CategoryKey) -> int | None:
        """Return the length that a share epsilon of answers exceeds, or None while too few are seen."""
        for key in (category, _model_of(category)):
            lengths = self._lengths.get(key)
            if lengths is not None and lengths.answers >= self._enough_answers:
                return lengths.exceeded_tokens
        return None

    def expected(self, category: CategoryKey) -> int:
        """Return the learned length; until enough answers are seen the default, or the longest if that is more."""
        learned = self.learned(category)
        if learned is not None:
            return learned
        lengths = self._lengths.get(_model_of(category))
        return self._default_tokens if lengths is None else max(self._default_tokens, lengths.exceeded_tokens)

    def observe(self, category: CategoryKey, tokens: int, *, cut: bool) -> None:
        """Take in the completion tokens of one answer; `cut` when a limit ended it."""
        if tokens > 0:
            self._lengths.use(_model_of(category)).learn(tokens, cut=cut)
            self._lengths.use(category).learn(tokens, cut=cut)

    def state(self) -> tuple[OutputState, ...]:
        """Return what is learned."""
        rows = ((key, lengths.ended.tolist(), lengths.cut.tolist()) for key, lengths in self._lengths)
        return tuple(OutputState(key, tuple(ended), tuple(cut)) for key, ended, cut in rows)

    def load(self, states: tuple[OutputState, ...]) -> None:
        """Take over what another router learned. Raises ConfigurationError for counts in other bins."""
        for state in states:
            if len(state.ended) != BINS or len(state.cut) != BINS:
                raise ConfigurationError(f"learned output lengths have {len(state.ended)} bins, not {BINS}")
            self._lengths.put(state.category, _Lengths(self._epsilon, np.array(state.ended), np.array(state.cut)))


def truncated_by_pool(usage: Usage, pool_tokens: int | None) -> bool:
    """Tell whether the pool's context ended an answer: cut by length with prompt + completion at its limit."""
    # vLLM stops at the limit or one short of it, by version.
    used = usage.prompt_tokens + usage.completion_tokens
    return usage.cut_by_length and pool_tokens is not None and used >= pool_tokens - 1


class _Lengths:
    """Fading counts of answers that ended by themselves, and that were cut, in each bin."""

    def __init__(
        self,
        epsilon: float,
        ended: npt.NDArray[np.float64] | None = None,
        cut: npt.NDArray[np.float64] | None = None,
    ) -> None:
        self._epsilon = epsilon
        self.ended = np.zeros(BINS) if ended is None else ended
        self.cut = np.zeros(BINS) if cut is None else cut
        self._refresh()

    def learn(self, tokens: int, *, cut: bool) -> None:
        self.ended *= FADING
        self.cut *= FADING
        (self.cut if cut else self.ended)[min(ceil(BINS_PER_OCTAVE * log2(tokens)), BINS - 1)] += 1
        self._refresh()

    def _refresh(self) -> None:
        lengths = self.ended + self.cut
        at_risk = lengths[::-1].cumsum()[::-1]
        self.answers = float(at_risk[0])
        hazard = np.divide(self.ended, at_risk, out=np.zeros(BINS), where=self.ended > 0)
        beyond = np.flatnonzero(np.cumprod(1 - hazard) <= self._epsilon)
        # The tail was not seen: one octave beyond the longest.
        unseen = lengths.nonzero()[0][-1] + BINS_PER_OCTAVE if self.answers else 0
        last = beyond[0] if beyond.size else unseen
        self.exceeded_tokens = ceil(2 ** (int(last) / BINS_PER_OCTAVE))


def _model_of(category: CategoryKey) -> CategoryKey:
    return CategoryKey(category.model, "")
