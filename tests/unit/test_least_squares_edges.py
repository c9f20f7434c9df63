"""Least squares: the first response, the weights of responses, failed updates, and memory."""

import tracemalloc

import numpy as np
import pytest

from extproc.core.estimator.features import features
from extproc.core.estimator.least_squares import NOISE, SOLVE_AFTER, RelativeLeastSquares, Sums
from extproc.core.estimator.prices import Prior, prior
from extproc.core.estimator.settings import MediaTokens
from extproc.core.estimator.text import look
from extproc.core.facts import Api, MediaCount, RequestFacts

PRIOR = Prior(np.array([0.2, 0.5, 4.0]), np.diag([0.09, 0.09, 25.0]))
X = np.array([700.0, 300.0, 1.0])


def test_before_any_response_the_variance_is_that_of_the_prior() -> None:
    """The variance of an estimate is u C u, with the prior's covariance C."""
    u = np.array([0.5, 0.1, 0.02])
    leverage = RelativeLeastSquares(PRIOR, 1.0).leverage(u)
    assert float(u @ PRIOR.covariance @ u) == pytest.approx(leverage)


def test_the_first_response_moves_the_prices_according_to_its_weight() -> None:
    """Prices solve (A + R) w = b + R w0, A = weight z z', b = weight z, z = x / tokens, R = NOISE^2 C^-1."""
    for weight in (1.0, 0.3):
        model = RelativeLeastSquares(PRIOR, 1.0)
        assert model.learn(X, 500.0, weight)
        z, ridge = X / 500.0, NOISE**2 * PRIOR.precision
        solved = np.linalg.solve(weight * np.outer(z, z) + ridge, weight * z + ridge @ PRIOR.mean)
        assert solved == pytest.approx(model.weights)


def test_each_update_reports_whether_it_succeeded() -> None:
    """This holds for updates between solutions and for full solutions; numbers that are not finite fail."""
    model = RelativeLeastSquares(PRIOR, 0.9995)
    rng = np.random.default_rng(0)
    assert {True} == {model.learn(rng.uniform(1, 900, 3), 400.0) for _ in range(3 * SOLVE_AFTER)}
    model.load(Sums(np.full((3, 3), np.nan), np.zeros(3)), 0, 0.0)
    assert {True, False} == {model.learn(X, 400.0) for _ in range(SOLVE_AFTER + 1)}
    assert not model.learn(np.full(3, np.inf), 400.0)


@pytest.mark.parametrize("forgetting", [1.0, 0.99, 0.5])
def test_the_weight_is_the_faded_number_of_responses(forgetting: float) -> None:
    """Each response counts as 1 when it arrives, and a loaded state as its weight."""
    model = RelativeLeastSquares(PRIOR, forgetting)
    for count in range(1, 50):
        model.learn(X, 400.0)
        assert sum(forgetting**age for age in range(count)) == pytest.approx(model.weight)
    model.load(model.sums, 9, 7.0)
    model.learn(X, 400.0)
    assert 7.0 * forgetting + 1 == pytest.approx(model.weight)


def test_a_model_with_few_responses_takes_little_memory() -> None:
    """Model names come from clients, so new models share their initial state; memory is allocated on demand."""
    size = 100
    prior = Prior(np.ones(size), np.eye(size))
    RelativeLeastSquares(prior, 0.9995)
    tracemalloc.start()
    try:
        models = [RelativeLeastSquares(prior, 0.9995) for _ in range(10)]
        for model in models:
            model.learn(np.ones(size), 100.0)
        bytes_each = tracemalloc.get_traced_memory()[0] / len(models)
    finally:
        tracemalloc.stop()
    assert bytes_each < size * size * 8 / 8
    assert all((models[0].weights == model.weights).all() for model in models)


@pytest.mark.parametrize("patches", [1e3, 1e5, 5e6])
def test_prices_that_the_prior_leaves_open_are_learned_without_diverging(patches: float) -> None:
    """Up to the first solution, too: 32 images that cost 300 tokens, a thousandth of what was to be expected."""
    rng, text = np.random.default_rng(1), b"what is in these pictures, and why? " * 8
    model = RelativeLeastSquares(prior(MediaTokens()), 0.9995)
    facts = RequestFacts(Api.CHAT, "m", text, messages=1, media=MediaCount(large_images=32, image_patches=patches))
    x = features(facts, look(text))
    for _ in range(SOLVE_AFTER - 1):
        assert model.learn(x, rng.uniform(280, 320))
    assert 300 == pytest.approx(model.predict(x), rel=0.01)
    assert 0.0025 / SOLVE_AFTER == pytest.approx(model.leverage(x) / 300**2, rel=0.1)


@pytest.mark.parametrize("size", [1, 32, 33, 65, 122])
def test_prices_of_any_number_of_features_solve_the_equations(size: int) -> None:
    """Prices and leverage are those of the complete system, also if it is larger than a block, and of odd size."""
    rng = np.random.default_rng(size)
    prior = Prior(rng.uniform(0.1, 1.0, size), np.diag(rng.uniform(0.01, 1.0, size)))
    model, z = RelativeLeastSquares(prior, 1.0), rng.uniform(0, 1, (SOLVE_AFTER, size))
    for row in z:
        assert model.learn(100 * row, 100.0)
    information, ridge = z.T @ z, NOISE**2 * prior.precision
    assert np.linalg.solve(information + ridge, z.sum(0) + ridge @ prior.mean) == pytest.approx(model.weights)
    expected = NOISE**2 * float(z[0] @ np.linalg.solve(information + ridge, z[0]))
    assert expected == pytest.approx(model.leverage(z[0]))


def test_sums_that_no_responses_make_change_no_prices() -> None:
    """Sums from elsewhere may leave a system that is well conditioned and yet not positive definite, or lead to
    prices so high that estimates by them are no numbers.
    """
    model = RelativeLeastSquares(PRIOR, 1.0)
    for tokens in range(400, 600):
        model.learn(X, float(tokens))
    before, sums = model.weights.copy(), model.sums
    crossed = np.zeros((3, 3))
    crossed[0, 1] = crossed[1, 0] = -3 * float(np.sqrt(sums.a[0, 0] * sums.a[1, 1]))
    model.shift(Sums(crossed, np.zeros(3)), 1, 1.0, model.responses)
    assert model.refused == 1
    assert model.weights == pytest.approx(before)
    model.load(Sums(sums.a, np.array([1e250, -1e250, 0.0])), 200, 200.0)
    assert model.refused == 1
    assert model.weights == pytest.approx(before)
