"""Prometheus metrics of changes to learned state that an operator made at the admin port."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from extproc.telemetry.tallies import Counters, Tally

__all__ = ["ChangeOutcome", "StateChange", "StateChangeMetrics"]


class StateChange(StrEnum):
    """The requested change; a metric label."""

    IMPORT = "import"
    RESET = "reset"
    UNDO = "undo"


class ChangeOutcome(StrEnum):
    """The outcome of a change; a metric label."""

    DONE = "done"
    REFUSED = "refused"  # damaged, foreign, too large, or a bad request: nothing has changed
    FAILED = "failed"  # the store, a worker or the loop did not take it


class StateChangeMetrics(Collector):
    """Counts changes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._changes = Counters(
            "dualpool_state_changes",
            "Changes to learned state requested at the admin port, by outcome",
            ["change", "outcome"],
        )
        self.tallies: tuple[Tally[Any], ...] = (self._changes,)
        for change in StateChange:
            for outcome in ChangeOutcome:
                self._changes[change, outcome] = 0
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Called at each scrape, on another thread."""
        return [tally.collect() for tally in self.tallies]

    def requested(self, change: StateChange, outcome: ChangeOutcome) -> None:
        """Count a requested change."""
        self._changes[change, outcome] += 1
