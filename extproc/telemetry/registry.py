"""The registry of one process: what it says of itself besides what the router counts."""

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    disable_created_metrics,
)

__all__ = ["process_registry"]


def process_registry() -> CollectorRegistry:
    """Return a registry with the metrics of the process and the interpreter (`process_*`, `python_*`)."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series for each counter, of no use
    registry = CollectorRegistry()
    for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
        registry.register(collector)
    return registry
