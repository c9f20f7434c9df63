"""Plain numbers by label, which become Prometheus metrics only when they are scraped.

Every request counts a dozen things, and a scrape comes every few seconds. So counting is a dictionary lookup and
an addition, and the library's samples are made at the scrape (prometheus_client's custom collectors). Rejected:
the library's own counters, which take a lock and several calls per increment.

One thread counts. Another may collect: it copies each dictionary and each row in one step of the interpreter, so
that each histogram is consistent.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Final, TypeVar

from prometheus_client import Metric

__all__ = ["PLAIN", "Counters", "Gauges", "Histograms", "Labels", "Tally"]

Labels = tuple[str, ...]
PLAIN: Final[Labels] = ()  # the labels of a metric that has none

V = TypeVar("V")


class Tally(dict[Labels, V]):
    """One metric: its help text, and its values by label values.

    A metric without labels has its only value from the start: 0, or an empty row.
    """

    kind: str

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        super().__init__()
        self.name = name
        self.text = text
        self.labels = tuple(labels)
        if not labels:
            self[PLAIN] = self[PLAIN]

    def collect(self) -> Metric:
        """Return the current values, for a scrape."""
        metric = Metric(self.name, self.text, self.kind)
        for labels, value in list(self.items()):
            named = dict(zip(self.labels, map(str, labels), strict=True))
            for suffix, more, number in self._samples(value):
                metric.add_sample(self.name + suffix, named | more, number)
        return metric

    def _samples(self, value: V) -> Iterator[tuple[str, dict[str, str], float]]:
        """Yield the samples of one value: suffix of the metric's name, additional labels, number."""
        raise NotImplementedError


class Counters(Tally[int]):
    """Counts that only rise: `counters[labels] += 1`."""

    kind = "counter"

    def __missing__(self, labels: Labels) -> int:
        """Return the initial count."""
        return 0

    def _samples(self, value: int) -> Iterator[tuple[str, dict[str, str], float]]:
        yield "_total", {}, value


class Gauges(Tally[float]):
    """Values that rise and fall: `gauges[labels] = value`, or the result of a function at each scrape."""

    kind = "gauge"
    _ask: Callable[[], float] | None = None

    def __missing__(self, labels: Labels) -> float:
        """Return the initial value."""
        return 0.0

    def set_function(self, ask: Callable[[], float]) -> None:
        """Use a function for the value of a gauge without labels; it must be quick and must not raise."""
        self._ask = ask

    def _samples(self, value: float) -> Iterator[tuple[str, dict[str, str], float]]:
        yield "", {}, value if self._ask is None else self._ask()


class Histograms(Tally[list[float]]):
    """Distributions: a row holds the count of each bucket, the count above the last one, and the sum of values."""

    kind = "histogram"

    def __init__(self, name: str, text: str, bounds: Sequence[float], labels: Sequence[str] = ()) -> None:
        self.bounds = tuple(bounds)
        self._names = [*(str(float(bound)) for bound in bounds), "+Inf"]
        super().__init__(name, text, labels)

    def __missing__(self, labels: Labels) -> list[float]:
        """Insert and return an empty row; the callers bound the number of labels."""
        row = self[labels] = [0.0] * (len(self.bounds) + 2)
        return row

    def observe(self, value: float, labels: Labels = PLAIN, times: int = 1) -> None:
        """Add a value, once or several times."""
        row = self[labels]
        row[bisect_left(self.bounds, value)] += times
        row[-1] += value * times

    def _samples(self, value: list[float]) -> Iterator[tuple[str, dict[str, str], float]]:
        *counts, total = tuple(value)
        reached = list(accumulate(counts))
        for bound, count in zip(self._names, reached, strict=True):
            yield "_bucket", {"le": bound}, count
        yield "_count", {}, reached[-1]
        yield "_sum", {}, total
