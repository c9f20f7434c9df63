"""The metrics registry of one process, with the metrics of the process itself."""

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
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a useless extra series per counter
    registry = CollectorRegistry()
    for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
        registry.register(collector)
    return registry
