"""How far actual tokens currently exceed bounds: a stopgap until it is known why bounds are missed.

The problem. If the tokenizer behind a name changes to one that makes more tokens, bounds are missed until a rival
has taken the model's place (rivals.py), which takes a dozen responses. At 1.6 times the tokens, half to three
quarters of the first 20 requests were sent to a pool where they did not fit.

The idea. A bound is missed once in a hundred responses, so three misses with almost no bound held in between are
not chance, if they come from several sources (sources.py). A counter goes up by one for each miss, to at most
MOST, and down by one for each bound that held. When it reaches IN_DOUBT, the bound is at least

    estimate x exp(largest log(actual / estimate) of the last misses)

until the counter falls below IN_DOUBT again. Each class of declared output limits (stratum.py) has such a counter,
too, with the sources of that class: the limit distinguishes applications, and one application's prompts may change
while everybody else's bounds hold, two of which would end the doubt.

None of this affects prices or anybody's estimate: when in doubt, the largest pool. One client cannot trigger it if
there are others, and two responses whose bounds held end it. It belongs to one process and is not shared.

Prior art: runs rules of control charts (Western Electric, 1956). Rejected, with figures in docs/estimator.md: the
larger of this bound and that of a rival on trial, which is as wide as a new model's; the rival's estimate of a
request, which comes later.
"""

from collections import deque

from extproc.core.estimator.sources import Sources
from extproc.core.placing.stratum import Declared

__all__ = ["Misses", "ModelMisses"]

IN_DOUBT, MOST = 3, 4
KEPT = 8  # misses


class Misses:
    """The last misses of one model's bounds.

    `count` is the number of misses minus the number of bounds that held since. `reach` is the logarithm by which
    bounds have to exceed estimates; 0 if there is no doubt.
    """

    def __init__(self) -> None:
        self.reach = 0.0
        self.count = 0
        self._last: deque[tuple[int, float]] = deque(maxlen=KEPT)

    def observe(self, source: int, sources: Sources, error: float, *, missed: bool) -> None:
        """Take in the log error of a response from one of the sources, and whether its bound was missed."""
        if missed:
            self.count = min(self.count + 1, MOST)
            self._last.append((source, error))
        else:
            self.count = max(self.count - 1, 0)
            if not self.count:
                self._last.clear()
        several = len({source for source, _ in self._last}) >= min(IN_DOUBT, sources.count)
        self.reach = max(error for _, error in self._last) if self.count >= IN_DOUBT and several else 0.0


class ModelMisses:
    """The last misses of one model's bounds: of all requests, and of each class of declared limits.

    `in_doubt` says that some bounds have to be wider than usual.
    """

    def __init__(self) -> None:
        self.in_doubt = False
        self._doubted: set[Declared] = set()
        self._all = Misses()
        self._of = {declared: (Misses(), Sources()) for declared in Declared}

    def observe(self, source: int, sources: Sources, declared: Declared, error: float, *, missed: bool) -> None:
        """Take in a response like `Misses`, from one of the model's sources."""
        if missed or self._all.count:
            self._all.observe(source, sources, error, missed=missed)
        misses, of_class = self._of[declared]
        of_class.observe(source, held=missed)
        if missed or misses.count:
            misses.observe(source, of_class, error, missed=missed)
            self._doubted = {each for each in self._of if self._of[each][0].reach}
        self.in_doubt = bool(self._all.reach or self._doubted)

    def reach(self, declared: Declared) -> float:
        """Return the logarithm by which bounds of such requests have to exceed estimates; 0 without doubt."""
        return max(self._all.reach, self._of[declared][0].reach)
