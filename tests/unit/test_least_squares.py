"""Recursive least squares: merging, the prior, and numerical stability over time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.estimator.least_squares import MAX_FADED, NOISE, SOLVE_AFTER, RelativeLeastSquares, Sums
from extproc.core.estimator.prices import Prior

PRIOR = Prior(np.array([0.2, 0.5, 4.0]), np.diag([0.09, 0.09, 25.0]))


def taught(seed: int, count: int = 50, forgetting: float = 1.0) -> RelativeLeastSquares:
    """Return a model that learned from random responses with true prices of 0.3, 0.4 and 7 tokens."""
    model = RelativeLeastSquares(PRIOR, forgetting)
    rng = np.random.default_rng(seed)
    for _ in range(count):
        x = np.array([rng.integers(100, 5_000), rng.integers(0, 2_000), 1.0])
        model.learn(x, float(x @ [0.3, 0.4, 7.0]))
    return model


def test_merged_sums_equal_those_of_one_model_that_saw_everything() -> None:
    """Without forgetting, merged replicas have the prices of one model that saw all responses."""
    whole = RelativeLeastSquares(PRIOR, 1.0)
    parts = [taught(1).sums, taught(2).sums]
    whole.load(Sums(parts[0].a + parts[1].a, parts[0].b + parts[1].b), 100, 100.0)
    one = taught(1)
    rng = np.random.default_rng(2)
    for _ in range(50):
        x = np.array([rng.integers(100, 5_000), rng.integers(0, 2_000), 1.0])
        one.learn(x, float(x @ [0.3, 0.4, 7.0]))
    assert whole.weights == pytest.approx(one.weights)


def test_prices_converge_to_the_true_ones() -> None:
    """With exact responses the prices converge to the true ones."""
    assert taught(3, 300).weights == pytest.approx([0.3, 0.4, 7.0], rel=0.2)


def test_an_unseen_feature_returns_to_its_prior() -> None:
    """A feature that vanishes from the traffic returns to its prior price, and its leverage grows."""
    model = taught(4, forgetting=0.99)
    u = np.array([0.0, 2.0, 0.0])
    before = model.leverage(u)
    for _ in range(3_000):
        model.learn(np.array([1_000.0, 0.0, 1.0]), 307.0)
    assert model.weights[1] == pytest.approx(0.5, abs=0.01)
    assert model.leverage(u) > 10 * before


def test_numbers_stay_valid_over_many_responses() -> None:
    """If responses hardly differ, sums stay bounded and exactly symmetric, and prices finite."""
    model = RelativeLeastSquares(PRIOR, 0.999)
    x = np.array([1_000.0, 1_000.0, 1.0])
    for position in range(30_000):
        model.learn(x, 700.0 + position % 3)
    assert (model.sums.a == model.sums.a.T).all()
    assert model.sums.a.max() < 1_000 * 1.5**2
    assert np.isfinite(model.weights).all()
    assert model.predict(x) == pytest.approx(701, rel=0.01)
    assert model.refused == 0


def test_responses_that_are_not_finite_are_refused_and_counted() -> None:
    """An infinite observation changes only the counter."""
    model = taught(5)
    before = model.weights
    model.learn(np.array([np.inf, 1.0, 1.0]), 10.0)
    assert (model.refused, model.weights is before) == (1, True)


def test_sums_that_are_not_finite_keep_the_old_prices() -> None:
    """Sums that are not finite are counted and not used."""
    model = taught(6)
    before = model.weights
    broken = Sums(np.full((3, 3), np.nan), np.zeros(3))
    model.load(broken, 10, 10.0)
    assert model.refused == 1
    assert model.weights is before


def test_sums_without_a_solution_keep_the_old_prices() -> None:
    """Sums in which all features are copies of each other have no solution; they are counted and not used."""
    prior = Prior(np.array([0.2, 0.5, 4.0]), np.eye(3))
    model = RelativeLeastSquares(prior, 1.0)
    model.load(Sums(np.ones((3, 3)) - NOISE * NOISE * prior.precision, np.zeros(3)), 10, 10.0)
    assert model.refused == 1
    assert model.weights is prior.mean


@pytest.mark.parametrize(("forgetting", "within"), [(1.0, 1e-9), (0.9995, 0.001), (0.99, 0.01), (0.9, 1e-9)])
def test_between_solutions_the_prices_are_those_of_all_responses(forgetting: float, within: float) -> None:
    """After each response the prices solve the sums, except for the fading since the last full solution."""
    model = RelativeLeastSquares(PRIOR, forgetting)
    rng = np.random.default_rng(7)
    for _ in range(150):
        x = np.array([rng.integers(100, 5_000), rng.integers(0, 2_000), 1.0])
        model.learn(x, float(x @ [0.3, 0.4, 7.0]) * rng.uniform(0.9, 1.1), rng.uniform(0.1, 1.0))
        solved = RelativeLeastSquares(PRIOR, forgetting)
        solved.load(model.sums, model.responses, model.weight)
        assert solved.predict(x) == pytest.approx(model.predict(x), rel=within)
        assert solved.leverage(x / 500) == pytest.approx(model.leverage(x / 500), rel=max(within, MAX_FADED))


def test_updates_since_the_last_solution_survive_one_that_fails() -> None:
    """If a solution fails, the covariance update from the responses since the last one is kept."""
    model = taught(9, 20)
    u = np.array([2.0, 1.0, 0.01])
    before, weights = model.leverage(u), model.weights
    model.shift(Sums(np.full((3, 3), np.nan), np.zeros(3)), 1, 1.0, 20)
    assert 1 == model.refused
    assert before == pytest.approx(model.leverage(u))
    assert model.weights is weights


@given(st.integers(1, 70), st.sampled_from([1.0, 0.999, 0.9]))
@settings(max_examples=20, deadline=None)
def test_reading_the_sums_does_not_change_them(looks: int, forgetting: float) -> None:
    """Reading the sums, at any time, does not change their values."""
    read, unread = taught(8, 0, forgetting), taught(8, 70, forgetting)
    rng = np.random.default_rng(8)
    for position in range(70):
        x = np.array([rng.integers(100, 5_000), rng.integers(0, 2_000), 1.0])
        read.learn(x, float(x @ [0.3, 0.4, 7.0]))
        if position % looks == 0:
            assert read.sums.a.shape == (3, 3)
    assert unread.sums.a == pytest.approx(read.sums.a)
    assert unread.sums.b == pytest.approx(read.sums.b)
    assert unread.weights == pytest.approx(read.weights, rel=0.02)


def test_subtracting_sums_stops_at_zero() -> None:
    """The weight and the number of responses do not fall below zero."""
    model = taught(10, 20)
    model.shift(Sums(np.zeros((3, 3)), np.zeros(3)), -30, -25.0, 20)
    assert (0, 0.0) == (model.responses, model.weight)


def test_what_leverage_keeps_for_learning_changes_nothing() -> None:
    """Prices are the same whether the leverage of a response was asked for before it taught, once, twice, or after
    others' sums were added in between.
    """
    asked, other = (RelativeLeastSquares(PRIOR, 0.999) for _ in range(2))
    rng = np.random.default_rng(5)
    for number in range(2 * SOLVE_AFTER):
        x = np.array([rng.integers(100, 5_000), rng.integers(0, 2_000), 1.0])
        asked.leverage(x if number % 3 else 2 * x)
        for each in (asked, other):
            if number % 8 == 7:
                each.shift(taught(number, 3).sums, 3, 3.0, each.responses)
            for _ in range(1 + number % 2):
                each.learn(x if each is asked else x.copy(), float(x @ [0.3, 0.4, 7.0]), weight=0.5)
        assert asked.weights == pytest.approx(other.weights, rel=1e-9)
    assert asked.leverage(x) == pytest.approx(other.leverage(x), rel=1e-9)
