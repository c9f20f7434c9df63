"""What one estimate costs: medians, in microseconds of CPU, of calls on a model that has learned."""

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
LESSONS = 300  # enough that solving has become rare


@dataclass(frozen=True, slots=True)
class Timing:
    """Median microseconds of CPU of an estimate of 4 KB and of 1 MB, and of learning; what one model keeps."""

    small_us: float
    large_us: float
    learning_us: float
    state_bytes: int


def time_estimator(text: bytes) -> Timing:
    """Measure on pieces of this text."""
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
    """Return the bytes of the sums of one model."""
    model = state.models[0]
    return sum(map(len, (model.sums_a, model.sums_b, model.scale_a, model.scale_b)))


def _median_us(call: Callable[[], object], count: int) -> float:
    """Return the median of the quietest of several batches: other programs share cores and caches."""
    return min(_median_of(call, count // BATCHES) for _ in range(BATCHES))


def _median_of(call: Callable[[], object], count: int) -> float:
    times = []
    for _ in range(count):
        start = thread_time_ns()  # not the clock's time: a busy machine would be measured instead
        call()
        times.append(thread_time_ns() - start)
    return median(times) / 1e3
