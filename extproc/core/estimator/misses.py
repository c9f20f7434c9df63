"""How far the truth lies above bounds just now: what to do until it is known why all of them are missed.

The problem. Where the tokenizer behind a name changes to one that makes more tokens, bounds are missed until a
rival has taken the model's place (rivals.py), which takes a dozen responses: of the first 20 requests at 1.6 times
the tokens half to three quarters were sent where they did not fit.

The idea. A bound is missed once in a hundred responses, so three misses with hardly one held between them are no
chance, if they are of several sources (sources.py). With a count that a miss moves up by one, to at most MOST, and
a bound that held down by one: from IN_DOUBT on the bound is at least

    estimate x exp(largest log(actual / estimate) of the last misses)

until it has come down again. The same is counted for each class of declared output limits (stratum.py), with the
sources of that class: a limit tells applications apart, and what one of them sends may change while all others'
bounds hold, of which two would end it.

That says nothing of prices, and moves nobody's estimate: when in doubt, the largest pool. One client alone does
not bring it about where there are others, and two responses whose bounds held end it. This is of one process, and
not shared.

Prior art: runs rules of control charts (Western Electric, 1956). Rejected, with figures in docs/estimator.md: the
larger of this bound and that of a rival on trial, which is as wide as a new model's; or of what the rival makes of
a request, which comes later.
"""

from collections import deque

from extproc.core.estimator.sources import Sources
from extproc.core.placing.stratum import Declared

__all__ = ["Misses", "ModelMisses"]

IN_DOUBT, MOST = 3, 4
KEPT = 8  # misses


class Misses:
    """The last misses of one model's bounds.

    `count` is of misses, less the bounds that held since. `reach` is how far bounds have to reach: a log, 0 out of
    doubt.
    """

    def __init__(self) -> None:
        self.reach = 0.0
        self.count = 0
        self._last: deque[tuple[int, float]] = deque(maxlen=KEPT)

    def observe(self, source: int, sources: int, error: float, *, missed: bool) -> None:
        """Take in the log error of a response of one of so many sources, and whether its bound was missed."""
        if missed:
            self.count = min(self.count + 1, MOST)
            self._last.append((source, error))
        elif self.count:
            self.count -= 1
            if not self.count:
                self._last.clear()
        else:
            return
        several = len({source for source, _ in self._last}) >= min(IN_DOUBT, sources)
        self.reach = max(error for _, error in self._last) if self.count >= IN_DOUBT and several else 0.0


class ModelMisses:
    """The last misses of one model's bounds: all together, and those of each class of declared limits.

    `in_doubt` says that some bounds have to reach further than their own.
    """

    def __init__(self) -> None:
        self.in_doubt = False
        self._doubted: set[Declared] = set()
        self._all = Misses()
        self._of = {declared: (Misses(), Sources()) for declared in Declared}

    def observe(self, source: int, sources: int, declared: Declared, error: float, *, missed: bool) -> None:
        """Take in a response as `Misses` does, of one of so many sources of the model."""
        self._all.observe(source, sources, error, missed=missed)
        misses, of_class = self._of[declared]
        of_class.observe(source, held=missed)
        if missed or misses.count:
            misses.observe(source, of_class.count, error, missed=missed)
            self._doubted = {each for each in self._of if self._of[each][0].reach}
        self.in_doubt = bool(self._all.reach or self._doubted)

    def reach(self, declared: Declared) -> float:
        """Return how far bounds of such requests have to reach: a log, 0 out of doubt."""
        return max(self._all.reach, self._of[declared][0].reach)
