"""When a served model is taken for another one than it was, and what is left of what was learned then."""

import numpy as np
import pytest

from extproc.core.estimator.prices import prior
from extproc.core.estimator.residual import Residual
from extproc.core.estimator.scale import SCALE_FACTORS
from extproc.core.estimator.served_model import ServedModel
from extproc.core.estimator.settings import ByteClassSettings, MediaTokens

PRIOR = prior(MediaTokens())


def test_many_sources_of_few_responses_do_not_make_a_model_wrong() -> None:
    """Nor does one source of many: most of the responses have to be beyond belief, and of most sources."""
    few_of_many, many_of_one = (ServedModel(PRIOR, ByteClassSettings(), Residual()) for _ in range(2))
    for source in range(6):
        few_of_many.observe(source, clipped=True)
        many_of_one.observe(source, clipped=False)
    for _ in range(20):
        few_of_many.observe(99, clipped=False)
        many_of_one.observe(99, clipped=True)
    assert [False, False] == [few_of_many.is_wrong, many_of_one.is_wrong]
    for source in range(30):
        many_of_one.observe(source, clipped=True)
    assert many_of_one.is_wrong


def test_nothing_is_left_of_a_model_that_starts_anew() -> None:
    """Prices, residual and scale are those of a new one, and it is of the next generation."""
    used, new = (ServedModel(PRIOR, ByteClassSettings(), Residual()) for _ in range(2))
    used.prices.learn(np.ones(PRIOR.mean.size), 500.0)
    used.scale.learn(0.01, [1.0] * SCALE_FACTORS, 0.3)
    used.residual.learn(0.3, 0.001, 2.0, move_mean=True)
    used.start_anew()
    assert (new.residual, 0, 1) == (used.residual, used.prices.responses, used.generation)
    factors = [1.0] * SCALE_FACTORS
    assert new.scale.variance(0.01, factors) == used.scale.variance(0.01, factors)
    assert new.prices.weights == pytest.approx(used.prices.weights)
