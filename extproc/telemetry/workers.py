"""Prometheus metrics of a supervisor about its workers."""

from enum import StrEnum

from prometheus_client import CollectorRegistry

from extproc.telemetry.tallies import Counters
from extproc.telemetry.tally_set import TallySet

__all__ = ["Replaced", "WorkerMetrics", "worker_streams"]


class Replaced(StrEnum):
    """Why a worker was replaced; a metric label."""

    ENDED = "ended"  # by itself, or killed
    STUCK = "stuck"  # it had not answered for a while, and was killed
    NOT_STARTED = "not_started"  # it ended, or could not listen, before it served


class WorkerMetrics(TallySet):
    """Counts workers and their replacements; one thread counts for each worker."""

    def __init__(self, registry: CollectorRegistry, workers: int) -> None:
        super().__init__()
        self.serving = self._gauge("workers_serving", "Worker processes that are ready")
        self._replaced = self._counter(
            "workers_replaced_total", "Worker processes that were replaced, by cause", "worker", "cause"
        )
        for number in range(workers):
            for cause in Replaced:
                self._replaced[str(number), cause] = 0
        registry.register(self)

    def replaced(self, worker: int, cause: Replaced) -> None:
        """Count a worker that is replaced."""
        self._replaced[str(worker), cause] += 1


def worker_streams() -> Counters:
    """Return the counter of streams by worker, to be filled from the workers' own counts at a scrape."""
    return Counters("dualpool_worker_streams", "Streams that have ended, by worker", ["worker"])
