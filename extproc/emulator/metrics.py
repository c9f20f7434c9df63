"""`/metrics` with vLLM's names and labels (vllm/v1/metrics/loggers.py), read from the scheduler on each scrape."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from extproc.emulator.scheduler import Scheduler

__all__ = ["SchedulerMetrics"]

_LABELS = ("model_name", "engine")
BLOCK_TOKENS = 16  # of the KV cache; vLLM's default


class SchedulerMetrics(Collector):
    """The state of one pool as Prometheus metrics."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def exposition(self) -> bytes:
        """Return the text that Prometheus scrapes."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; called by prometheus_client on each scrape."""
        scheduler = self._scheduler
        gauges = {
            "vllm:num_requests_running": ("Requests being executed.", len(scheduler.running)),
            "vllm:num_requests_waiting": ("Requests waiting for a place.", len(scheduler.waiting)),
            "vllm:kv_cache_usage_perc": ("KV cache usage; 1 means 100 percent.", scheduler.kv_usage),
        }
        for name, (what, value) in gauges.items():
            gauge = GaugeMetricFamily(name, what, labels=_LABELS)
            gauge.add_metric(self._label_values(), value)
            yield gauge
        blocks = scheduler.settings.kv_capacity // BLOCK_TOKENS
        labels = {"block_size": str(BLOCK_TOKENS), "engine": "0", "num_gpu_blocks": str(blocks)}
        info = GaugeMetricFamily(
            "vllm:cache_config_info", "Configuration of the KV cache, in the labels.", labels=tuple(labels)
        )
        info.add_metric(tuple(labels.values()), 1)
        yield info
        counter = CounterMetricFamily("vllm:num_preemptions", "Preemptions so far.", labels=_LABELS)
        counter.add_metric(self._label_values(), scheduler.preemptions)
        yield counter

    def _label_values(self) -> tuple[str, str]:
        return (self._scheduler.settings.model, "0")
