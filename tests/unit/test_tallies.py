"""Plain numbers are exported as the same samples that the library's own metrics would give."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from extproc.core.facts import Api
from extproc.telemetry.tallies import PLAIN, Counters, Gauges, Histograms, Tally

BOUNDS = (0.5, 1, 2.5, 10)
NAMES = st.sampled_from(["a", 'quoted "b"', "line\nend", Api.CHAT])


class Collected(Collector):
    """A collector to register with a registry."""

    def __init__(self, *tallies: Tally[int] | Tally[float] | Tally[list[float]]) -> None:
        self._tallies = tallies

    def collect(self) -> Iterable[Metric]:
        """Return all tallies."""
        return [tally.collect() for tally in self._tallies]


def without_times(page: bytes) -> list[bytes]:
    """Return a page's lines without the library's creation times."""
    return [line for line in page.splitlines() if b"_created" not in line]


@given(
    counted=st.lists(NAMES),
    measured=st.lists(st.tuples(NAMES, st.one_of(st.floats(-1, 20), st.sampled_from(BOUNDS)))),
    plain=st.lists(st.floats(0, 20)),
)
def test_pages_are_those_of_the_library(
    counted: list[str], measured: list[tuple[str, float]], plain: list[float]
) -> None:
    """Whatever is counted, both formats of the page equal those of the library's metrics byte for byte."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counters, gauges = Counters("d_requests", "Requests", ["name"]), Gauges("d_level", "Level", ["name"])
    spread, alone = Histograms("d_size", "Sizes", BOUNDS, ["name"]), Histograms("d_seconds", "Times", BOUNDS)
    total = Counters("d_all", "All")
    ours.register(Collected(counters, gauges, spread, alone, total))
    counter = Counter("d_requests_total", "Requests", ["name"], registry=theirs)
    gauge = Gauge("d_level", "Level", ["name"], registry=theirs)
    histogram = Histogram("d_size", "Sizes", ["name"], buckets=BOUNDS, registry=theirs)
    single = Histogram("d_seconds", "Times", buckets=BOUNDS, registry=theirs)
    whole = Counter("d_all_total", "All", registry=theirs)
    for name in counted:
        counters[name,] += 1
        counter.labels(name).inc()
        total[PLAIN] += 1
        whole.inc()
    for name, value in measured:
        gauges[name,] = value
        gauge.labels(name).set(value)
        spread.observe(value, (name,))
        histogram.labels(name).observe(value)
    for value in plain:
        alone.observe(value)
        single.observe(value)
    assert without_times(generate_latest(theirs)) == generate_latest(ours).splitlines()
    pages = [generate_openmetrics(each) for each in (theirs, ours)]  # type: ignore[no-untyped-call]
    assert without_times(pages[0]) == pages[1].splitlines()


def test_a_gauge_may_be_computed_by_a_function() -> None:
    """A gauge with a function shows the function's value at the time of the scrape."""
    gauge, levels = Gauges("d_level", "Level"), iter([1.0, 2.0])
    gauge.set_function(lambda: next(levels))
    assert [1.0, 2.0] == [gauge.collect().samples[0].value for _ in range(2)]


def test_reading_an_absent_count_creates_no_series() -> None:
    """A counter that was never incremented reads as 0 and is not exported."""
    counters = Counters("d_requests", "Requests", ["name"])
    assert counters["a",] == 0
    assert counters.collect().samples == []
