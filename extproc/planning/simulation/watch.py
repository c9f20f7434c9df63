"""Stops a simulation that can no longer meet the objective: most of a search's time goes into fleets that fail.

A 99th percentile must miss once so many requests missed that it does even if every request still to come is
answered in time. The count is exact, so a stopped run is one that would have been judged a failure at its end.
"""

from dataclasses import dataclass

from extproc.planning.model.setup import Objective

__all__ = ["Watch", "misses_for_certain"]

TAIL = 0.99


@dataclass(slots=True)
class Watch:
    """Counts what missed the objective in each pool, of the requests from `first` (after the warm-up) on.

    `requests` is the number of them that are measured, `misses` counts (TTFT, TPOT) by pool.
    """

    objective: Objective
    first: int
    requests: int
    answered: list[int]
    misses: list[list[int]]

    @property
    def hopeless(self) -> bool:
        """Whether every pool misses the objective, whatever comes."""
        total = sum(self.answered)
        return all(
            max(missed) >= misses_for_certain(self.requests - (total - mine))
            for missed, mine in zip(self.misses, self.answered, strict=True)
        )

    def note(self, pool: int, request: int, ttft_s: float, tpot_s: float) -> None:
        """Count one answer; `tpot_s` is nan for a single token."""
        if request < self.first:
            return
        self.answered[pool] += 1
        missed = self.misses[pool]
        missed[0] += ttft_s > self.objective.ttft_s
        missed[1] += tpot_s > self.objective.tpot_s


def misses_for_certain(requests: int) -> int:
    """Return how many of at most so many requests must miss for their 99th percentile to miss.

    The percentile lies between two neighbours in order of size; both are misses then. One more than that, so that
    no rounding between the two can matter.
    """
    return requests - int(TAIL * max(0, requests - 1)) + 1
