"""How far the truth lies above bounds just now: what to do until it is known why all of them are missed.

The problem. Where the tokenizer behind a name changes to one that makes more tokens, bounds are missed until a
rival has taken the model's place (rivals.py), which takes a dozen responses: of the first 20 requests at 1.6 times
the tokens half to three quarters were sent where they did not fit.

The idea. A bound is missed once in a hundred responses, so three misses with hardly one held between them are no
chance, if they are of several sources (sources.py). With a count that a miss moves up by one, to at most MOST, and
a bound that held down by one: from IN_DOUBT on the bound is at least

    estimate x exp(largest log(actual / estimate) of the last misses)

until it has come down again. That says nothing of prices, and moves nobody's estimate: when in doubt, the largest
pool. One client alone does not bring it about where there are others, and two responses whose bounds held end it.
This is of one process, and not shared.

Prior art: runs rules of control charts (Western Electric, 1956). Rejected, with figures in docs/estimator.md: the
larger of this bound and that of a rival on trial, which is as wide as a new model's; or of what the rival makes of
a request, which comes later.
"""

from collections import deque

__all__ = ["Misses"]

IN_DOUBT, MOST = 3, 4
KEPT = 8  # misses


class Misses:
    """The last misses of one model's bounds. `reach` is how far bounds have to reach: a log, 0 out of doubt."""

    def __init__(self) -> None:
        self.reach = 0.0
        self._count = 0
        self._last: deque[tuple[int, float]] = deque(maxlen=KEPT)

    def observe(self, source: int, sources: int, error: float, *, missed: bool) -> None:
        """Take in the log error of a response of one of so many sources, and whether its bound was missed."""
        if missed:
            self._count = min(self._count + 1, MOST)
            self._last.append((source, error))
        elif self._count:
            self._count -= 1
            if not self._count:
                self._last.clear()
        else:
            return
        several = len({source for source, _ in self._last}) >= min(IN_DOUBT, sources)
        self.reach = max(error for _, error in self._last) if self._count >= IN_DOUBT and several else 0.0
