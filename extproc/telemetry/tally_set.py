"""A base class for sets of metrics, which adds the prefix to their names and collects them; common buckets."""

from collections.abc import Iterable
from typing import Any, TypeVar

from prometheus_client import Metric
from prometheus_client.registry import Collector

from extproc.telemetry.tallies import Counters, Gauges, Histograms, Tally

__all__ = ["RATIO_BUCKETS", "SECONDS_BUCKETS", "TOKEN_BUCKETS", "TallySet"]

T = TypeVar("T", Counters, Gauges, Histograms)

TOKEN_BUCKETS = (
    *(64, 128, 256, 512, 1024, 2048, 3072, 4096, 6144, 8192, 12288, 16384),
    *(24576, 32768, 49152, 65536, 98304, 131072),
)
# Narrow around 1, where the estimators differ.
RATIO_BUCKETS = (0.25, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0, 1.02, 1.05, 1.1, 1.15, 1.2, 1.3, 1.5, 2.0, 4.0)
SECONDS_BUCKETS = (5e-5, 1e-4, 1.5e-4, 2e-4, 3e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 5e-2, 0.2, 1.0)


class TallySet(Collector):
    """Metrics to count in, and for a registry to collect; subclasses declare them, in the order of /metrics."""

    def __init__(self) -> None:
        self.tallies: list[Tally[Any]] = []

    def collect(self) -> Iterable[Metric]:
        """Called at each scrape, on another thread."""
        return [tally.collect() for tally in self.tallies]

    def _counter(self, name: str, text: str, *labels: str) -> Counters:
        return self._add(Counters(f"dualpool_{name.removesuffix('_total')}", text, labels))

    def _gauge(self, name: str, text: str, *labels: str) -> Gauges:
        return self._add(Gauges(f"dualpool_{name}", text, labels))

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...], *labels: str) -> Histograms:
        return self._add(Histograms(f"dualpool_{name}", text, bounds, labels))

    def _add(self, tally: T) -> T:
        self.tallies.append(tally)
        return tally
