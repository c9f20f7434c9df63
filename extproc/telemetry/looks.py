"""Looks (samples of all metrics), and the differences between two of them.

They contain metrics only, no objects of the router, so that one process and the sum of several are shown alike.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import Metric

__all__ = [
    "Labels",
    "Look",
    "Wanted",
    "differences",
    "grown",
    "is_histogram",
    "is_number",
    "look_at",
    "seconds_between",
    "sum_of",
]

HISTOGRAMS = frozenset({"dualpool_estimate_ratio", "dualpool_bound_ratio", "dualpool_budget_tokens"})
Wanted = Callable[[str, str], bool]
"""Return whether to sample a metric with this name and type."""
Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Look:
    """All samples at one moment, `at_s` by a monotonic clock."""

    at_s: float
    samples: Mapping[str, Mapping[Labels, float]]


def look_at(metrics: Iterable[Metric], at_s: float, shared: dict[Labels, Labels]) -> Look:
    """Return all samples of some metrics.

    Looks with the same `shared` have their labels in common, which would otherwise be most of their memory.
    """
    samples: dict[str, dict[Labels, float]] = defaultdict(dict)
    for metric in metrics:
        for sample in metric.samples:
            labels = frozenset(sample.labels.items())
            samples[sample.name][shared.setdefault(labels, labels)] = sample.value
    return Look(at_s, dict(samples))


def is_number(name: str, kind: str) -> bool:
    """Return whether a metric has few values, so that it is sampled each time."""
    return kind != "histogram" and not name.endswith("_per_token")


def is_histogram(name: str, _: str) -> bool:
    """Return whether a metric is one of the histograms that `judging.py` uses."""
    return name in HISTOGRAMS


def seconds_between(before: Look, after: Look) -> float:
    """Return the time between two looks, never 0."""
    return max(after.at_s - before.at_s, 1e-9)


def grown(before: Look, after: Look, name: str) -> Iterator[tuple[dict[str, str], float]]:
    """Yield by how much a counter grew, for each label set that grew."""
    return ((labels, count) for labels, count in differences(before, after, name) if count > 0)


def differences(before: Look, after: Look, name: str) -> Iterator[tuple[dict[str, str], float]]:
    """Yield a counter's difference for each label set; one that fell was reset, and counts from 0."""
    earlier = before.samples.get(name, {})
    for labels, value in after.samples.get(name, {}).items():
        past = earlier.get(labels, 0.0)
        yield dict(labels), value - past if value >= past else value


def sum_of(before: Look, after: Look, name: str) -> float:
    """Return by how much a counter grew, summed over all labels."""
    return sum(count for _, count in grown(before, after, name))
