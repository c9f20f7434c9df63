"""The metrics of several processes merged into one set: each process's metrics as plain values, and their merge.

Counters and histograms are added, including those of ended processes: Prometheus would take a falling sum for a
restart, and count the rest of it again. Gauges merge by their meaning. A gauge without a rule here is shown per
process, with the process's number as a label, which is always correct; so are attempts, because the successes of
some processes would hide the failures of others.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import isnan, nan
from statistics import fmean
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.samples import Sample

__all__ = ["GAUGE_RULES", "PER_PROCESS", "Ended", "Family", "families_of", "merged"]

Labels = tuple[tuple[str, str], ...]
Key = tuple[str, str, Labels]
"""The identity of a sample: its family, its own name, its labels."""

PER_PROCESS: Final = frozenset(
    {
        *("dualpool_state_snapshots", "dualpool_state_exchanges"),
        *("dualpool_state_saving_failed", "dualpool_state_sharing_failed"),
    }
)


def _oldest(times: Sequence[float]) -> float:
    """Return the smallest, or NaN if one is NaN: that process has never done it."""
    return nan if any(map(isnan, times)) else min(times)


# dualpool_bytes_per_token is the last response's, and it is unknown which process had that: so the mean.
GAUGE_RULES: Final[Mapping[str, Callable[[Sequence[float]], float]]] = {
    "dualpool_bound_epsilon": max,
    "dualpool_bytes_per_token": fmean,
    "dualpool_certificate_valid_from_timestamp_seconds": min,
    "dualpool_certificate_valid_until_timestamp_seconds": min,
    "dualpool_config_file_not_in_force": max,
    "dualpool_drain_ends_timestamp_seconds": max,
    "dualpool_draining": min,  # the router drains if all workers do, not while one of them is replaced
    "dualpool_files_not_in_force": max,
    "dualpool_info": max,
    "dualpool_loop_lag_seconds": max,
    # Each worker polls the pools' servers itself; all get the same values, a moment apart.
    "dualpool_pool_endpoints": max,
    "dualpool_pool_endpoints_answered": min,
    "dualpool_pool_models": max,
    "dualpool_pool_preemptions": max,
    "dualpool_pool_pressure": max,
    "dualpool_pool_spill_share": fmean,
    "dualpool_ready": max,
    # The oldest, so that the others do not hide a worker that no longer saves.
    "dualpool_state_exchanged_timestamp_seconds": _oldest,
    "dualpool_state_replicas": min,  # so that the others do not hide a worker that shares with nobody
    "dualpool_state_saved_timestamp_seconds": _oldest,
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
    """Return the current metrics of a registry."""
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
    """The counts of ended processes; bounded, because labels are."""

    def __init__(self) -> None:
        self._counted: dict[Key, float] = {}
        self._families: dict[str, Family] = {}

    def add(self, families: Iterable[Family]) -> None:
        """Add the last known metrics of a process that has ended."""
        for family in families:
            if family.type in _ADDED and _merges(family):
                self._families[family.name] = family
                for key, value in _items(family):
                    self._counted[key] = self._counted.get(key, 0.0) + value

    def families(self) -> list[Family]:
        """Return the counts as those of one more process."""
        samples: dict[str, list[tuple[str, dict[str, str], float]]] = {name: [] for name in self._families}
        for (name, sample, labels), value in self._counted.items():
            samples[name].append((sample, dict(labels), value))
        return [family._replace(samples=samples[name]) for name, family in self._families.items()]


def merged(processes: Mapping[str, Sequence[Family]]) -> Iterator[Metric]:
    """Yield the metrics of processes, keyed by their names, as those of one process."""
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
    """Merge by the gauge's rule; NaN (unknown) counts only if all processes have it, or for `_oldest`."""
    rule: Callable[[Sequence[float]], float] = GAUGE_RULES.get(name, sum)
    known = [value for value in found if not isnan(value)]
    return float(rule(known if known and rule is not _oldest else found))


def _merges(family: Family) -> bool:
    return family.name not in PER_PROCESS and (family.type in _ADDED or family.name in GAUGE_RULES)


def _items(family: Family) -> Iterator[tuple[Key, float]]:
    for sample, labels, value in family.samples:
        yield (family.name, sample, tuple(sorted(labels.items()))), value
