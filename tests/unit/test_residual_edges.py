"""The weight of a residual, and the limits when others' contributions are subtracted."""

from dataclasses import replace
from math import exp, inf

import pytest

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.residual import FIRST_SPREAD, LIMIT, Residual, loaded, natural_weight
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.state_tables import tables_of
from extproc.core.estimator.terms import Terms
from tests.unit.byteclass_lessons import teach


@pytest.mark.parametrize("responses", [1, 7, 20])
def test_a_residual_counts_its_responses_up_to_its_memory(responses: int) -> None:
    """Its weight is its responses plus the trust in the initial values, capped at 50 responses."""
    assert responses == natural_weight(responses) - natural_weight(0)
    assert 50 == natural_weight(10**6) == natural_weight(10**9)


def test_no_more_is_subtracted_than_there_is() -> None:
    """Neither bytes per token nor responses become negative, and the spread is that of a residual without any."""
    residual = Residual()
    for _ in range(5):
        residual.learn(0.1, 0.001, 4.0, move_mean=True)
    residual.shift(0.0, -100.0, -100.0, -1, since=5)
    assert (0.0, 4) == (residual.bytes_per_token, residual.responses)
    assert FIRST_SPREAD == residual.spread
    residual.shift(0.0, -100.0, -100.0, -100, since=4)
    assert Residual() == residual  # nothing is left of it


@pytest.mark.parametrize(
    ("mean", "spread", "responses"),
    [(1_000.0, 0.1, 5), (-1e285, 0.1, 5), (0.0, 1e200, 5), (0.0, -0.1, 5), (0.0, 0.1, -1)],
)
def test_a_residual_that_no_responses_make_is_refused(mean: float, spread: float, responses: int) -> None:
    """An estimator does not load it, whether of a category or of a model: no request could be estimated by it."""
    taught, estimator = ByteClassEstimator(EstimatorSettings()), ByteClassEstimator(EstimatorSettings())
    teach(taught, 20)
    state, before = taught.state(), estimator.state()
    models = [replace(row, residual=mean, spread=spread, observations=responses) for row in state.models]
    rows = [replace(row, residual=mean, spread=spread, observations=responses) for row in state.categories]
    for wrong in (replace(state, models=tuple(models)), replace(state, categories=tuple(rows))):
        with pytest.raises(ConfigurationError, match=r"learned residual of model 'm?' is"):
            estimator.load(wrong)
        with pytest.raises(ConfigurationError, match=r"learned residual of model 'm?' is"):
            tables_of(wrong, Terms.of(EstimatorSettings()))
    assert before == estimator.state()


def test_the_largest_residual_is_taken() -> None:
    """What is written when others' sums are beyond the limits is read again."""
    for mean in (LIMIT, -LIMIT):
        assert (mean, LIMIT) == (loaded("m", mean, LIMIT, 4.0, 1).mean, loaded("m", mean, LIMIT, 4.0, 1).spread)


def test_a_residual_without_spread_learns_one() -> None:
    """Rounding may have left no spread of a merged residual: its bounds widen with the errors all the same."""
    taught, estimator = ByteClassEstimator(EstimatorSettings()), ByteClassEstimator(EstimatorSettings())
    teach(taught, 20)
    state = taught.state()
    models = tuple(replace(row, spread=0.0) for row in state.models)
    rows = tuple(replace(row, spread=0.0) for row in state.categories)
    estimator.load(replace(state, models=models, categories=rows))
    teach(estimator, 200, seed=1)
    after = estimator.state()
    spreads = [*(row.spread for row in after.models), *(row.spread for row in after.categories)]
    assert 0.01 < min(spreads) <= max(spreads) < 0.1


def test_no_change_of_others_takes_a_residual_beyond_its_limits() -> None:
    """Whatever others say, requests can be estimated."""
    for far in (1e3, -1e3):
        residual = Residual()
        residual.shift(far, 1e6, 0.0, 10, since=0)
        assert (LIMIT, LIMIT) == (abs(residual.mean), residual.spread)
        assert 0 < exp(residual.mean) < inf
