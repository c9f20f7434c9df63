"""Early stopping of runs that can no longer meet the objective: most of a search is spent on fleets that fail.

The number of requests in each class is known in advance, so after more of them were late than allowed, no later
request can change the verdict. The counts are exact: a run that is stopped would have been judged a failure at its
end.
"""

from dataclasses import dataclass

from extproc.planning.model.objective import FEWEST_JUDGED, LATE, Objective
from extproc.planning.workload.lengths import Tokens

__all__ = ["Watch", "watch_for"]


@dataclass(slots=True)
class Watch:
    """Counts late requests by pool, starting with request number `first` (after the warm-up).

    `index` holds the class of each request, `allowed` how many of each class may be late, `late` the counts by
    pool, class and (TTFT, TPOT), `own` each pool's counts beyond the loosest times, `answered` each pool's
    responses.
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
        """Whether every pool is certain to miss the objective."""
        return all(self._misses(pool) for pool in range(len(self.answered)))

    def note(self, pool: int, request: int, ttft_s: float, tpot_s: float) -> None:
        """Count one response; `tpot_s` is nan for a single token."""
        if request < self.first:
            return
        self.answered[pool] += 1
        place = self.index[request]
        objective, counts = self.objective.classes[place], self.late[pool][place]
        counts[0] += ttft_s > objective.ttft_s
        counts[1] += tpot_s > objective.tpot_s
        own = self.own[pool]
        own[0] += ttft_s > self.loosest[0]
        own[1] += tpot_s > self.loosest[1]

    def _misses(self, pool: int) -> bool:
        if any(max(counts) > allowed for counts, allowed in zip(self.late[pool], self.allowed, strict=True)):
            return True
        most = self.requests - (sum(self.answered) - self.answered[pool])
        return self.judge_own and max(self.own[pool]) > LATE * most


def watch_for(objective: Objective, total: Tokens, first: int, pools: int) -> Watch:
    """Return the watch of a run; `total` holds the prompt plus output tokens of each request."""
    index = objective.of(total)
    classes = objective.classes
    coming = objective.count(total[first:])
    # A class with few requests is not judged. A longer warm-up may exclude some requests, which only lowers the
    # number that may be late.
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
