"""The residual of a category: its mean, its spread, and its initial values."""

from math import sqrt

import pytest

from extproc.core.estimator.residual import FIRST_STEPS, MIN_SPREAD, SLOWEST_STEP, Residual


def test_the_mean_waits_until_the_prices_are_taught() -> None:
    """Until then errors only widen the spread, since the prices are about to correct them."""
    residual = Residual()
    for _ in range(50):
        residual.learn(0.5, 0.0, 4.0, move_mean=False)
    assert (0.0, 50) == (residual.mean, residual.responses)
    assert 0.4 < residual.spread <= 0.5
    residual.learn(0.5, 0.0, 4.0, move_mean=True)
    assert 0.5 * SLOWEST_STEP == pytest.approx(residual.mean)


def test_steps_grow_smaller_up_to_a_limit() -> None:
    """The first response moves the mean by a tenth of the distance, the thousandth by a fiftieth."""
    residual = Residual()
    residual.learn(1.0, 0.0, 4.0, move_mean=True)
    assert 1 / FIRST_STEPS == residual.mean
    residual.learn(1.0, 0.0, 4.0, move_mean=True)
    assert 1 / FIRST_STEPS + (1 - 1 / FIRST_STEPS) / (FIRST_STEPS + 1) == pytest.approx(residual.mean)
    old = Residual(responses=1_000)
    old.learn(1.0, 0.0, 4.0, move_mean=True)
    assert SLOWEST_STEP == old.mean


def test_the_spread_excludes_the_doubt_that_was_expected() -> None:
    """The variance that was expected for the request is subtracted, down
    to the minimum by which templates differ.
    """
    residual = Residual(spread=0.2)
    residual.learn(0.3, 0.04, 4.0, move_mean=False)
    assert sqrt(0.95 * 0.2**2 + 0.05 * (0.3**2 - 0.04)) == pytest.approx(residual.spread)
    sure = Residual(spread=0.2)
    sure.learn(0.1, 0.04, 4.0, move_mean=False)
    assert sqrt(0.95 * 0.2**2 + 0.05 * MIN_SPREAD**2) == pytest.approx(sure.spread)


def test_a_response_counts_by_how_little_of_it_was_in_doubt() -> None:
    """If the doubt is three times the category's variance, mean and spread move by a quarter of a step."""
    residual = Residual(spread=0.2, responses=1_000)
    residual.learn(0.5, 3 * 0.2**2, 4.0, move_mean=True)
    step = SLOWEST_STEP / 4
    assert step * 0.5 == pytest.approx(residual.mean)
    assert sqrt((1 - step) * 0.2**2 + step * (0.5**2 - 3 * 0.2**2)) == pytest.approx(residual.spread)


def test_the_distance_is_from_the_previous_mean() -> None:
    """An error as large as the mean confirms the mean and narrows the spread."""
    residual = Residual(mean=0.3, spread=0.2)
    residual.learn(0.3, 0.0, 4.0, move_mean=True)
    assert 0.3 == residual.mean
    assert sqrt(0.9 * 0.2**2 + 0.1 * MIN_SPREAD**2) == pytest.approx(residual.spread)


def test_bytes_per_token_start_with_the_first_response() -> None:
    """The displayed figure is the first response's, and then moves as the mean does."""
    residual = Residual()
    residual.learn(0.0, 0.0, 4.0, move_mean=True)
    assert 4.0 == residual.bytes_per_token
    residual.learn(0.0, 0.0, 5.0, move_mean=True)
    assert 4 + 1 / (FIRST_STEPS + 1) == pytest.approx(residual.bytes_per_token)


def test_a_child_starts_from_its_parent_and_is_new() -> None:
    """A new category has its parent's error and spread, and no responses."""
    parent = Residual(0.2, 0.3, 4.5, 70)
    assert Residual(0.2, 0.3, 0.0, 0) == parent.child()
