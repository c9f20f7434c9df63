"""Prometheus metrics of the configuration file."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from extproc.telemetry.tallies import PLAIN, Counters, Gauges, Tally

__all__ = ["ReloadMetrics", "ReloadOutcome"]


class ReloadOutcome(StrEnum):
    """What became of a changed configuration file; a metric label."""

    APPLIED = "applied"  # except for settings that need a restart
    REFUSED = "refused"  # the previous configuration stays in force


class ReloadMetrics(Collector):
    """Counts the outcomes of changed files."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._reloads = Counters(
            "dualpool_config_reloads", "Changes of the configuration file, by outcome", ["outcome"]
        )
        self._differs = Gauges(
            "dualpool_config_file_not_in_force",
            "1 while the configuration file is refused or a part of it needs a restart",
        )
        self.tallies: tuple[Tally[Any], ...] = (self._reloads, self._differs)
        for outcome in ReloadOutcome:
            self._reloads[outcome,] = 0
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Called at each scrape, on another thread."""
        return [tally.collect() for tally in self.tallies]

    def reloaded(self, outcome: ReloadOutcome, *, in_force: bool) -> None:
        """Count a changed file; `in_force`: whether all of it is in force."""
        self._reloads[outcome,] += 1
        self._differs[PLAIN] = not in_force
