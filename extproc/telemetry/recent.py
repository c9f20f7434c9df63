"""The latest decisions, for the live page; no text of a request is kept, here as elsewhere."""

from collections import deque
from dataclasses import dataclass

from extproc.core.listener import Listener
from extproc.core.placing.decision import Decision

__all__ = ["Recent", "Shown"]

MOST = 100


@dataclass(frozen=True, slots=True)
class Shown:
    """One decision as it is shown; token counts are None if the request was not read."""

    number: int
    api: str
    model: str
    body_bytes: int
    estimate: float | None
    bound: float | None
    budget: float | None
    pool: str
    reason: str
    routed: bool


class Recent(Listener):
    """A Listener that keeps the last decisions; `number` counts them."""

    def __init__(self) -> None:
        self._kept: deque[tuple[int, Decision]] = deque(maxlen=MOST)
        self._number = 0

    def decided(self, decision: Decision) -> None:
        """Keep a decision; the oldest is dropped."""
        self._number += 1
        self._kept.append((self._number, decision))

    def since(self, number: int) -> list[Shown]:
        """Return the decisions after that number; for other threads."""
        return [_shown(at, decision) for at, decision in self._kept.copy() if at > number]


def _shown(number: int, decision: Decision) -> Shown:
    estimate, budget = decision.estimate, decision.budget
    return Shown(
        number=number,
        api=decision.api.value,
        model=decision.model,
        body_bytes=decision.body_bytes,
        estimate=None if estimate is None else estimate.prompt_tokens,
        bound=None if estimate is None else estimate.prompt_bound,
        budget=None if budget is None else budget.bound,
        pool=decision.pool.name,
        reason=decision.reason.value,
        routed=decision.routed,
    )
