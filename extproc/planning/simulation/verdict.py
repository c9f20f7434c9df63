"""The verdict on a run: whether it met the objective and, if not, which of its pools are to blame.

A class of lengths is judged over all pools: its users do not know which one served them. In addition, each pool
must keep the loosest times of the objective for its own requests, so that a starved long pool cannot hide behind
the many requests of the short one, and its queue must not grow until the end of the run. If a class missed, the
pools with the most late requests of it are to blame, as many as it takes until the rest is within the class's
allowance. A class with too few requests in a run for a 99th percentile is judged only as part of its pool; whoever
reports a verdict has to name it (`not_judged`).
"""

from dataclasses import dataclass

from extproc.planning.model.objective import FEWEST_JUDGED, LATE, LengthClass, Objective
from extproc.planning.simulation.summary import ClassFigures, Summary
from extproc.planning.workload.lengths import Tokens

__all__ = ["Miss", "Verdict", "not_judged", "verdict"]

GROWS = "grows to the end"


@dataclass(frozen=True, slots=True)
class Miss:
    """A part of the objective that was missed: its name, the measured value and the required one, as text."""

    what: str
    value: str
    required: str

    def __str__(self) -> str:
        return f"{self.what} {self.value} (required: {self.required})"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether each pool passed, and what was missed; `doubtful` marks pools that failed only because their queue
    grows in a run too short to tell whether it would stop.
    """

    passed: tuple[bool, ...]
    misses: tuple[Miss, ...]
    doubtful: tuple[bool, ...]

    @property
    def only_grows(self) -> bool:
        """Whether growing queues are the only miss: a longer run may show that they stop growing."""
        return bool(self.misses) and all(miss.value == GROWS for miss in self.misses)


def verdict(summary: Summary, objective: Objective) -> Verdict:
    """Judge a run."""
    loosest = LengthClass(
        float("inf"), max(c.ttft_s for c in objective.classes), max(c.tpot_s for c in objective.classes)
    )
    misses: list[Miss] = []
    blamed: set[int] = set()
    growing = {index for index, pool in enumerate(summary.by_pool) if pool.grows}
    for place, (required, figures) in enumerate(zip(objective.classes, summary.judged, strict=True)):
        if figures.latency.requests < FEWEST_JUDGED:
            continue
        for kind in (0, 1):
            if figures.late[kind] > required.late:
                misses.append(_class_miss(required, figures, kind, named=len(objective.classes) > 1))
                blamed |= _to_blame(summary, place, kind, required.late * figures.latency.requests)
    for index, pool in enumerate(summary.by_pool):
        if index in growing:
            misses.append(Miss(f"the queue of pool {summary.pools[index].name}", GROWS, "steady"))
        late = [count > LATE * pool.latency.requests for count in pool.late]
        # If a class may be late more often than LATE (a pool that serves part of a class), only the class counts.
        if any(late) and all(each.late <= LATE for each in objective.classes):
            blamed.add(index)
            if not misses:
                misses += [_pool_miss(summary, index, loosest, kind) for kind in (0, 1) if late[kind]]
    return Verdict(
        passed=tuple(index not in blamed | growing for index in range(len(summary.by_pool))),
        misses=tuple(misses),
        doubtful=tuple(pool.doubtful and index not in blamed for index, pool in enumerate(summary.by_pool)),
    )


def not_judged(summary: Summary, objective: Objective, total: Tokens) -> tuple[str, ...]:
    """Return the names of the classes of which the run had too few requests; `total` holds the workload's lengths,
    prompt plus output: a class that it does not have is no gap.
    """
    return tuple(
        figures.name
        for figures, present in zip(summary.judged, objective.count(total), strict=True)
        if present and figures.latency.requests < FEWEST_JUDGED
    )


def _to_blame(summary: Summary, place: int, kind: int, allowed: float) -> set[int]:
    """Return the pools to blame for a class: those with the most late requests, until the number that is left is
    allowed.
    """
    counts = sorted(((pool.late_by_class[place][kind], i) for i, pool in enumerate(summary.by_pool)), reverse=True)
    blamed, left = set(), sum(count for count, _ in counts)
    for count, index in counts:
        if left <= allowed:
            break
        blamed.add(index)
        left -= count
    return blamed


def _class_miss(required: LengthClass, figures: ClassFigures, kind: int, *, named: bool) -> Miss:
    of = f" of {required.requests}" if named else ""
    if kind == 0:
        return Miss(f"P99 TTFT{of}", f"{figures.latency.ttft_p99_s:.2f} s", f"{required.ttft_s:g} s")
    return Miss(f"P99 TPOT{of}", f"{figures.latency.tpot_p99_s * 1e3:.0f} ms", f"{required.tpot_s * 1e3:g} ms")


def _pool_miss(summary: Summary, index: int, loosest: LengthClass, kind: int) -> Miss:
    latency, of = summary.by_pool[index].latency, f" of pool {summary.pools[index].name}"
    if kind == 0:
        return Miss(f"P99 TTFT{of}", f"{latency.ttft_p99_s:.2f} s", f"{loosest.ttft_s:g} s")
    return Miss(f"P99 TPOT{of}", f"{latency.tpot_p99_s * 1e3:.0f} ms", f"{loosest.tpot_s * 1e3:g} ms")
