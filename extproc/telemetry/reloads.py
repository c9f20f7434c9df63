"""Prometheus metrics of the configuration file."""

from enum import StrEnum

from prometheus_client import CollectorRegistry

from extproc.telemetry.tallies import PLAIN
from extproc.telemetry.tally_set import TallySet

__all__ = ["ReloadMetrics", "ReloadOutcome"]


class ReloadOutcome(StrEnum):
    """What became of a changed configuration file; a metric label."""

    APPLIED = "applied"  # except for settings that need a restart
    REFUSED = "refused"  # the previous configuration stays in force


class ReloadMetrics(TallySet):
    """Counts the outcomes of changed files."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._reloads = self._counter(
            "config_reloads_total", "Changes of the configuration file, by outcome", "outcome"
        )
        self._differs = self._gauge(
            "config_file_not_in_force",
            "1 while the configuration file is refused or a part of it needs a restart",
        )
        for outcome in ReloadOutcome:
            self._reloads[outcome,] = 0
        registry.register(self)

    def reloaded(self, outcome: ReloadOutcome, *, in_force: bool) -> None:
        """Count a changed file; `in_force`: whether all of it is in force."""
        self._reloads[outcome,] += 1
        self._differs[PLAIN] = float(not in_force)
