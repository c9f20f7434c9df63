"""Merging the metrics of several processes."""

from collections.abc import Callable
from math import isnan, nan

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from extproc.telemetry.families import GAUGE_RULES, PER_PROCESS, Ended, Family, families_of, merged
from extproc.telemetry.metrics import Metrics
from extproc.telemetry.reloads import ReloadMetrics
from extproc.telemetry.state_changes import StateChangeMetrics
from extproc.telemetry.workers import WorkerMetrics


def process(requests: int = 0, seconds: float = 0.5, /, **gauges: float) -> list[Family]:
    """Return the metrics of a process with these values."""
    registry = CollectorRegistry()
    Counter("requests_total", "Requests", ("pool",), registry=registry).labels("short").inc(requests)
    Histogram("seconds", "Time", buckets=(0.1, 1.0), registry=registry).observe(seconds)
    for name, value in gauges.items():
        Gauge(name, "A gauge", registry=registry).set(value)
    return families_of(registry)


def values(processes: dict[str, list[Family]]) -> dict[str, float]:
    """Return all merged samples, keyed by name and labels."""
    return {
        f"{sample.name}{sorted(sample.labels.items()) or ''}": sample.value
        for metric in merged(processes)
        for sample in metric.samples
    }


def test_counters_and_histograms_add() -> None:
    """Each sample is the sum over all processes."""
    found = values({"0": process(3, 0.05), "1": process(4, 0.5)})
    assert 7 == found["requests_total[('pool', 'short')]"]
    buckets = [found[f"seconds_bucket[('le', '{limit}')]"] for limit in ("0.1", "1.0", "+Inf")]
    assert ([1, 2, 2], 0.55) == (buckets, found["seconds_sum"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dualpool_streams_open", 5),
        ("dualpool_ready", 3),
        ("dualpool_draining", 2),
        ("dualpool_state_replicas", 2),
        ("dualpool_state_saved_timestamp_seconds", 2),
        ("dualpool_loop_lag_seconds", 3),
        ("dualpool_bytes_per_token", 2.5),
        ("process_resident_memory_bytes", 5),
        ("process_start_time_seconds", 2),
    ],
)
def test_gauges_merge_according_to_their_meaning(name: str, expected: float) -> None:
    """Depending on the gauge, the merged value is the sum, the maximum, the minimum or the mean."""
    assert expected == values({"0": process(**{name: 2}), "1": process(**{name: 3})})[name]


def test_a_gauge_without_a_rule_is_shown_for_each_process() -> None:
    """Merging a gauge of unknown meaning could give a wrong value."""
    found = values({"0": process(queue=2), "1": process(queue=3)})
    assert (2, 3) == (found["queue[('worker', '0')]"], found["queue[('worker', '1')]"])


def test_a_worker_that_has_never_saved_is_not_hidden() -> None:
    """The merged time is unknown until every worker has saved; other unknown values do not hide known ones."""
    name = "dualpool_state_saved_timestamp_seconds"
    assert isnan(values({"0": process(**{name: 5}), "1": process(**{name: nan})})[name])
    name = "dualpool_pool_pressure"
    assert 5 == values({"0": process(**{name: 5}), "1": process(**{name: nan})})[name]


def test_attempts_are_counted_for_each_process() -> None:
    """One worker's successes do not hide another's failures; a worker that has ended leaves no series behind."""
    processes = {}
    for number, outcome in enumerate(("done", "failed")):
        registry = CollectorRegistry()
        attempts = Counter("dualpool_state_snapshots_total", "Attempts", ("outcome",), registry=registry)
        attempts.labels(outcome).inc(3)
        processes[str(number)] = families_of(registry)
    ended = Ended()
    ended.add(processes["1"])
    found = values(processes | {"ended": ended.families()})
    name = "dualpool_state_snapshots_total"
    counted = {key: value for key, value in found.items() if key.startswith(name)}
    assert counted == {
        f"{name}[('outcome', 'done'), ('worker', '0')]": 3,
        f"{name}[('outcome', 'failed'), ('worker', '1')]": 3,
    }


def test_a_failure_is_shown_for_each_process() -> None:
    """A worker whose attempts fail is seen, and which one it is."""
    name = "dualpool_state_saving_failed"
    found = values({"0": process(**{name: 0}), "1": process(**{name: 1})})
    assert (0, 1) == tuple(found[f"{name}[('worker', '{worker}')]"] for worker in "01")


def test_the_metrics_of_a_worker_reach_its_supervisor() -> None:
    """Every value is a number in the message to the supervisor, also where it says yes or no."""
    registry = CollectorRegistry()
    metrics = Metrics(registry, 1, 1)
    metrics.state_saved(done=False)
    metrics.state_exchanged(done=True, replicas=1)
    families = families_of(registry)
    received = msgspec.msgpack.decode(msgspec.msgpack.encode(families), type=list[Family])
    assert [family.name for family in families] == [family.name for family in received]


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=30))
def test_counters_never_fall(events: list[tuple[int, bool]]) -> None:
    """Whichever processes count or end, in any order, no count is lost."""
    counts, ended, counted = [0, 0, 0], Ended(), 0
    for number, ends in events:
        if ends:
            ended.add(process(counts[number]))
            counts[number] = 0
        else:
            counts[number] += 1
            counted += 1
        processes = {str(each): process(count) for each, count in enumerate(counts)}
        found = values(processes | {"ended": ended.families()})
        assert counted == found["requests_total[('pool', 'short')]"]


@pytest.mark.parametrize(
    "make",
    [lambda r: Metrics(r, 1, 1), ReloadMetrics, StateChangeMetrics, lambda r: WorkerMetrics(r, 2)],
    ids=["router", "reloads", "changes", "workers"],
)
def test_every_gauge_has_a_rule(make: Callable[[CollectorRegistry], object]) -> None:
    """Each of our gauges has a rule that says how it is merged, or is shown for each process on purpose."""
    registry = CollectorRegistry()
    make(registry)
    gauges = {metric.name for metric in registry.collect() if metric.type == "gauge"}
    assert gauges <= GAUGE_RULES.keys() | PER_PROCESS
