"""Metrics of several processes as one: what a process counted, as plain values, and how such values merge.

Counters and histograms add, also what a process counted that has ended: Prometheus would take a sum that falls for
a restart, and count all that is left of it once more. Gauges merge by what they mean. One that has no rule here is
shown for each process, with its number as a label: that is true of any.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import isnan
from statistics import fmean
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.samples import Sample

__all__ = ["GAUGE_RULES", "Ended", "Family", "families_of", "merged"]

Labels = tuple[tuple[str, str], ...]
Key = tuple[str, str, Labels]
"""Of a sample: its family, its own name, its labels."""

# dualpool_bytes_per_token is of the last response, and nobody knows whose came last.
GAUGE_RULES: Final[Mapping[str, Callable[[Sequence[float]], float]]] = {
    "dualpool_bytes_per_token": fmean,
    "dualpool_config_file_not_in_force": max,
    "dualpool_draining": min,  # the router does when all of it does: a worker that is replaced is none of that
    "dualpool_info": max,
    "dualpool_loop_lag_seconds": max,
    # Each worker asks the pools' servers for itself, and they tell all of them the same, a moment apart.
    "dualpool_pool_endpoints": max,
    "dualpool_pool_endpoints_answered": min,
    "dualpool_pool_models": max,
    "dualpool_pool_preemptions": max,
    "dualpool_pool_pressure": max,
    "dualpool_pool_spill_share": fmean,
    "dualpool_ready": max,
    # The oldest: one that no longer saves is not hidden by the others.
    "dualpool_state_exchanged_timestamp_seconds": min,
    "dualpool_state_replicas": max,
    "dualpool_state_saved_timestamp_seconds": min,
    "dualpool_streams_open": sum,
    "dualpool_workers_serving": sum,
    "process_max_fds": min,
    "process_open_fds": sum,
    "process_resident_memory_bytes": sum,
    "process_start_time_seconds": min,
    "process_virtual_memory_bytes": sum,
    "python_info": max,
}
_ADDED: Final = ("counter", "histogram", "summary")


class Family(NamedTuple):
    """A metric with its samples: name, labels and value of each."""

    name: str
    documentation: str
    type: str
    samples: list[tuple[str, dict[str, str], float]]


def families_of(registry: CollectorRegistry) -> list[Family]:
    """Return all that a registry holds now."""
    return [
        Family(
            metric.name,
            metric.documentation,
            metric.type,
            [(each.name, dict(each.labels), each.value) for each in metric.samples],
        )
        for metric in registry.collect()
    ]


class Ended:
    """What ended processes have counted; bounded as labels are."""

    def __init__(self) -> None:
        self._counted: dict[Key, float] = {}
        self._families: dict[str, Family] = {}

    def add(self, families: Iterable[Family]) -> None:
        """Take in the last that is known of a process that has ended."""
        for family in families:
            if family.type in _ADDED:
                self._families[family.name] = family
                for key, value in _items(family):
                    self._counted[key] = self._counted.get(key, 0.0) + value

    def families(self) -> list[Family]:
        """Return it as one process more."""
        samples: dict[str, list[tuple[str, dict[str, str], float]]] = {name: [] for name in self._families}
        for (name, sample, labels), value in self._counted.items():
            samples[name].append((sample, dict(labels), value))
        return [family._replace(samples=samples[name]) for name, family in self._families.items()]


def merged(processes: Mapping[str, Sequence[Family]]) -> Iterator[Metric]:
    """Yield the metrics of processes, each under its name, as those of one."""
    values: dict[Key, list[float]] = {}
    known: dict[str, Family] = {}
    for process, families in processes.items():
        for family in families:
            known.setdefault(family.name, family)
            more = () if _merges(family) else (("worker", process),)
            for (name, sample, labels), value in _items(family):
                values.setdefault((name, sample, labels + more), []).append(value)
    metrics = {family.name: Metric(family.name, family.documentation, family.type) for family in known.values()}
    for (name, sample, labels), found in values.items():
        value = _gauge(name, found) if known[name].type == "gauge" else sum(found)
        metrics[name].samples.append(Sample(sample, dict(labels), value))
    yield from metrics.values()


def _gauge(name: str, found: Sequence[float]) -> float:
    """Merge by the rule; what one process does not know (NaN) another one may."""
    rule: Callable[[Sequence[float]], float] = GAUGE_RULES.get(name, sum)
    return float(rule([value for value in found if not isnan(value)] or found))


def _merges(family: Family) -> bool:
    return family.type in _ADDED or family.name in GAUGE_RULES


def _items(family: Family) -> Iterator[tuple[Key, float]]:
    for sample, labels, value in family.samples:
        yield (family.name, sample, tuple(sorted(labels.items()))), value
