"""Prometheus metrics of a supervisor about its workers."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from extproc.telemetry.tallies import Counters, Gauges, Tally

__all__ = ["Replaced", "WorkerMetrics", "worker_streams"]


class Replaced(StrEnum):
    """Why a worker was replaced; a metric label."""

    ENDED = "ended"  # by itself, or killed
    STUCK = "stuck"  # it had not answered for a while, and was killed
    NOT_STARTED = "not_started"  # it ended, or could not listen, before it served


class WorkerMetrics(Collector):
    """Counts workers and their replacements; one thread counts for each worker."""

    def __init__(self, registry: CollectorRegistry, workers: int) -> None:
        self.serving = Gauges("dualpool_workers_serving", "Worker processes that are ready")
        self._replaced = Counters(
            "dualpool_workers_replaced", "Worker processes that were replaced, by cause", ["worker", "cause"]
        )
        self.tallies: tuple[Tally[Any], ...] = (self.serving, self._replaced)
        for number in range(workers):
            for cause in Replaced:
                self._replaced[str(number), cause] = 0
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Called at each scrape, on another thread."""
        return [tally.collect() for tally in self.tallies]

    def replaced(self, worker: int, cause: Replaced) -> None:
        """Count a worker that is replaced."""
        self._replaced[str(worker), cause] += 1


def worker_streams() -> Counters:
    """Return the counter of streams by worker, to be filled from the workers' own counts at a scrape."""
    return Counters("dualpool_worker_streams", "Streams that have ended, by worker", ["worker"])
