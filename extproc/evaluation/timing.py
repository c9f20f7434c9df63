"""The cost of an estimate: the median CPU time of calls on a model that has learned, in microseconds."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import thread_time_ns

from extproc.core.estimator import make_estimator
from extproc.core.estimator.protocol import LearnedState
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.facts import Api, RequestFacts
from extproc.core.usage import Usage

__all__ = ["Timing", "time_estimator"]

SMALL_BYTES = 4 * 1024
LARGE_BYTES = 1024 * 1024
BATCHES = 20
LESSONS = 300  # after this many the model rarely solves for its prices


@dataclass(frozen=True, slots=True)
class Timing:
    """Median CPU microseconds of estimating 4 KB and 1 MB and of learning; the bytes of one model's state."""

    small_us: float
    large_us: float
    learning_us: float
    state_bytes: int


def time_estimator(text: bytes) -> Timing:
    """Measure on excerpts of this text."""
    estimator = make_estimator(EstimatorSettings())
    repeated = text * (LARGE_BYTES // len(text) + 2)
    small, large = (
        RequestFacts(Api.CHAT, "model", repeated[:size], messages=1, turns=(("user", size),))
        for size in (SMALL_BYTES, LARGE_BYTES)
    )
    estimate = estimator.estimate(small, "")
    usage = Usage(SMALL_BYTES // 4)
    for _ in range(LESSONS):
        estimator.observe(estimate, usage)
    return Timing(
        small_us=_median_us(lambda: estimator.estimate(small, ""), 4_000),
        large_us=_median_us(lambda: estimator.estimate(large, ""), 1_000),
        learning_us=_median_us(lambda: estimator.observe(estimate, usage), 4_000),
        state_bytes=_state_bytes(estimator.state()),
    )


def _state_bytes(state: LearnedState) -> int:
    """Return the size of one model's sums, in bytes."""
    model = state.models[0]
    return sum(map(len, (model.sums_a, model.sums_b, model.scale_a, model.scale_b)))


def _median_us(call: Callable[[], object], count: int) -> float:
    """Return the lowest median of several batches, because other programs share cores and caches."""
    return min(_median_of(call, count // BATCHES) for _ in range(BATCHES))


def _median_of(call: Callable[[], object], count: int) -> float:
    times = []
    for _ in range(count):
        start = thread_time_ns()  # CPU time: wall-clock time would include other programs
        call()
        times.append(thread_time_ns() - start)
    return median(times) / 1e3
