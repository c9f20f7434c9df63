"""A stand-in for the estimator in force, for code that stores what is learned while a reload may replace it."""

from collections.abc import Callable, Mapping, Sequence

from extproc.core.estimator.change import Change
from extproc.core.estimator.protocol import Estimate, Estimator, LearnedState, Learning
from extproc.core.facts import RequestFacts
from extproc.core.usage import Overflow, Usage

__all__ = ["CurrentEstimator"]


class CurrentEstimator:
    """Delegates each call to the estimator that is in force at that time."""

    def __init__(self, current: Callable[[], Estimator]) -> None:
        self._current = current

    def estimate(self, facts: RequestFacts, tenant: str) -> Estimate:
        """Delegate to the estimator in force."""
        return self._current().estimate(facts, tenant)

    def observe(self, estimate: Estimate, usage: Usage, pool_tokens: int | None = None) -> Learning:
        """Delegate to the estimator in force."""
        return self._current().observe(estimate, usage, pool_tokens)

    def observe_overflow(self, estimate: Estimate, overflow: Overflow) -> None:
        """Delegate to the estimator in force."""
        self._current().observe_overflow(estimate, overflow)

    def know_parents(self, parents: Mapping[str, str]) -> None:
        """Delegate to the estimator in force."""
        self._current().know_parents(parents)

    def undo(self, model: str) -> bool:
        """Delegate to the estimator in force."""
        return self._current().undo(model)

    def state(self) -> LearnedState:
        """Delegate to the estimator in force."""
        return self._current().state()

    def parts(self) -> Sequence[Callable[[], LearnedState]]:
        """Delegate to the estimator in force."""
        return self._current().parts()

    def shift(self, change: Change) -> Change:
        """Delegate to the estimator in force."""
        return self._current().shift(change)

    def load(self, state: LearnedState) -> None:
        """Delegate to the estimator in force."""
        self._current().load(state)
