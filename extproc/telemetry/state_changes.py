"""Prometheus metrics of changes to learned state that an operator made at the admin port."""

from enum import StrEnum

from prometheus_client import CollectorRegistry

from extproc.telemetry.tally_set import TallySet

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
    FAILED = "failed"  # the store, a worker or the loop did not apply it


class StateChangeMetrics(TallySet):
    """Counts the requested changes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._changes = self._counter(
            "state_changes_total",
            "Changes to learned state requested at the admin port, by outcome",
            "change",
            "outcome",
        )
        for change in StateChange:
            for outcome in ChangeOutcome:
                self._changes[change, outcome] = 0
        registry.register(self)

    def requested(self, change: StateChange, outcome: ChangeOutcome) -> None:
        """Count a requested change."""
        self._changes[change, outcome] += 1
