"""Stops a simulation that can no longer meet the objective: most of a search's time goes into fleets that fail.

How many requests of each class are coming is known, so once more of them were late than may be, no later request
can change the verdict. The counts are exact: a stopped run is one that would have been judged a failure at its
end.
"""

from dataclasses import dataclass

import numpy as np

from extproc.planning.model.objective import FEWEST_JUDGED, LATE, Objective
from extproc.planning.workload.lengths import Tokens

__all__ = ["Watch", "watch_for"]


@dataclass(slots=True)
class Watch:
    """Counts late requests by pool, of the requests from `first` (after the warm-up) on.

    `index` holds the class of each request, `allowed` how many of each class may be late, `late` the counts by
    pool, class and (TTFT, TPOT), `own` those beyond the loosest times by pool, `answered` all responses by pool.
    """

    objective: Objective
    first: int
    requests: int
    index: list[int]
    allowed: list[float]
    late: list[list[list[int]]]
    own: list[list[int]]
    answered: list[int]
    loosest: tuple[float, float]
    judge_own: bool

    @property
    def hopeless(self) -> bool:
        """Whether every pool misses the objective, whatever comes."""
        return all(self._misses(pool) for pool in range(len(self.answered)))

    def note(self, pool: int, request: int, ttft_s: float, tpot_s: float) -> None:
        """Count one response; `tpot_s` is nan for a single token."""
        if request < self.first:
            return
        self.answered[pool] += 1
        place = self.index[request]
        asked, counts = self.objective.classes[place], self.late[pool][place]
        counts[0] += ttft_s > asked.ttft_s
        counts[1] += tpot_s > asked.tpot_s
        own = self.own[pool]
        own[0] += ttft_s > self.loosest[0]
        own[1] += tpot_s > self.loosest[1]

    def _misses(self, pool: int) -> bool:
        if any(max(counts) > allowed for counts, allowed in zip(self.late[pool], self.allowed, strict=True)):
            return True
        most = self.requests - (sum(self.answered) - self.answered[pool])
        return self.judge_own and max(self.own[pool]) > LATE * most


def watch_for(objective: Objective, total: Tokens, first: int, pools: int) -> Watch:
    """Return the watch of a run; `total` holds prompt plus output tokens of each of its requests."""
    index = objective.of(total)
    classes = objective.classes
    coming = np.bincount(index[first:], minlength=len(classes)).tolist()
    # A class of few requests is not judged. A longer warm-up may leave some out, which only lowers what is
    # allowed.
    allowed = [
        float("inf") if count < FEWEST_JUDGED else each.late * count
        for each, count in zip(classes, coming, strict=True)
    ]
    return Watch(
        objective=objective,
        first=first,
        requests=len(index) - first,
        index=index.tolist(),
        allowed=allowed,
        late=[[[0, 0] for _ in classes] for _ in range(pools)],
        own=[[0, 0] for _ in range(pools)],
        answered=[0] * pools,
        loosest=(max(c.ttft_s for c in classes), max(c.tpot_s for c in classes)),
        judge_own=all(each.late <= LATE for each in classes),
    )
