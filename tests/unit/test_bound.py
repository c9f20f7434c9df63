"""The adaptive bound: how q moves, and that the bound never falls below the estimate."""

from math import exp

import pytest

from extproc.core.estimator.bound import AdaptiveBound


def test_q_never_falls_below_zero() -> None:
    """However many prompts stay below it, the bound is never below the estimate; one miss raises it."""
    bound = AdaptiveBound(0.5)
    for _ in range(1_000):
        bound.observe(-100.0)
        assert bound.q >= 0
    assert (0.0, 100.0) == (bound.q, bound.above(100.0, 0.3))
    bound.observe(100.0)
    assert 0.5 * 0.5 == bound.q


@pytest.mark.parametrize("epsilon", [0.01, 0.1])
def test_steps_balance_at_epsilon(epsilon: float) -> None:
    """One miss in 1 / epsilon prompts leaves q where it was: a miss weighs as much as all the hits."""
    bound = AdaptiveBound(epsilon)
    assert 4.0 == bound.q
    bound.observe(100.0)
    assert 4.0 + 0.5 * (1 - epsilon) == pytest.approx(bound.q)
    for _ in range(round(1 / epsilon) - 1):
        bound.observe(0.0)
    assert 4.0 == pytest.approx(bound.q)


def test_a_bound_is_q_scales_above_the_estimate() -> None:
    """The bound is the estimate times exp(q * scale); the exponent is capped at 20."""
    assert 100 * exp(3 * 0.1) == pytest.approx(AdaptiveBound(0.01, q=3.0).above(100, 0.1))
    assert 100 * exp(20.0) == AdaptiveBound(0.01, q=1e6).above(100, 1e6)


def test_the_last_256_scores_are_kept_with_q_before_each() -> None:
    """At most 256 scores are kept between two exchanges; the total number of scores is counted as well."""
    bound = AdaptiveBound(0.01)
    assert (0, []) == (bound.scored, list(bound.past))
    for number in range(300):
        bound.observe(-float(number))
    assert (300, 256) == (bound.scored, len(bound.past))
    assert (4.0 - 44 * 0.5 * 0.01, -44.0) == pytest.approx(bound.past[0])
