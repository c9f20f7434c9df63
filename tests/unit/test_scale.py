"""The scale of a request: what it learns, when, and that its sums equal those of sequential updates."""

from math import exp, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.estimator.scale import (
    FORGETTING,
    MIN_ERROR,
    RIDGE,
    SCALE_FACTORS,
    SOLVE_AFTER,
    USUAL_LEVERAGE,
    LogVariance,
)

Lesson = tuple[float, list[float], float]


def lessons(count: int, seed: int = 0) -> list[Lesson]:
    """Return s0^2, factors and error for a number of responses."""
    rng = np.random.default_rng(seed)
    factors = np.hstack([np.ones((count, 1)), rng.uniform(-1, 1, (count, SCALE_FACTORS - 1))])
    return [
        (0.01, row.tolist(), float(error)) for row, error in zip(factors, rng.normal(0, 0.1, count), strict=True)
    ]


@given(count=st.integers(0, 3 * SOLVE_AFTER), looks=st.integers(1, 10))
@settings(deadline=None)
def test_sums_equal_those_of_sequential_updates(count: int, looks: int) -> None:
    """However responses are batched and whenever the sums are read, A and b are the faded sums."""
    scale = LogVariance()
    a, b = np.zeros((SCALE_FACTORS, SCALE_FACTORS)), np.zeros(SCALE_FACTORS)
    for number, (base, factors, error) in enumerate(lessons(count)):
        scale.learn(base, factors, error)
        f = np.array(factors)
        a = FORGETTING * a + np.outer(f, f)
        b = FORGETTING * b + f * log(max(error * error, MIN_ERROR**2) / base)
        if number % looks == 0:
            assert a == pytest.approx(scale.sums[0])
    assert a == pytest.approx(scale.sums[0])
    assert b == pytest.approx(scale.sums[1])


def test_the_scale_is_solved_after_every_eighth_response() -> None:
    """Until then s is s0; then t is the solution of the sums, and the usual leverage is their mean."""
    scale, some = LogVariance(), lessons(SOLVE_AFTER)
    factors = some[0][1]
    for lesson in some[:-1]:
        scale.learn(*lesson)
        assert (0.04, USUAL_LEVERAGE) == (scale.variance(0.04, factors), scale.usual_leverage)
    scale.learn(*some[-1])
    a, b = scale.sums
    t = np.linalg.solve(a + RIDGE * np.eye(SCALE_FACTORS), b)
    assert 0.04 * exp(float(t @ factors)) == pytest.approx(scale.variance(0.04, factors))
    assert USUAL_LEVERAGE * exp(a[0, 2] / (a[0, 0] + RIDGE)) == pytest.approx(scale.usual_leverage)


def test_merged_sums_are_used_at_once_and_add_up() -> None:
    """Two scales that learned separately, merged, have the sums and the scale of both."""
    one, other, both = LogVariance(), LogVariance(), LogVariance()
    for lesson in lessons(5, 1):
        one.learn(*lesson)
    for lesson in lessons(6, 2):
        other.learn(*lesson)
    both.load(*one.sums)
    both.shift(*other.sums, 0)
    assert one.sums[0] + other.sums[0] == pytest.approx(both.sums[0])
    assert one.sums[1] + other.sums[1] == pytest.approx(both.sums[1])
    assert both.variance(0.01, lessons(1)[0][1]) != 0.01
    one.load(*other.sums)
    assert other.sums[1] == pytest.approx(one.sums[1])


def test_the_sums_hold_a_thousand_responses() -> None:
    """Older ones are forgotten, so that a scale follows its text however many responses came before."""
    scale = LogVariance()
    for base, factors, error in lessons(4_000):
        scale.learn(base, factors, error)
    assert 950 < scale.sums[0][0, 0] < 1_000
