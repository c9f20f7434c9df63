"""The effect of an error of zero on the scale."""

import numpy as np
import pytest

from extproc.core.estimator.scale import RIDGE, SCALE_FACTORS, LogVariance


@pytest.mark.parametrize("error", [0.0, 0.0001, -0.002])
def test_a_negligible_error_counts_as_a_small_one(error: float) -> None:
    """Errors below 0.3 % count as 0.3 %: the logarithm of a smaller error would have too
    much weight, and that of zero is undefined.
    """
    scales = [LogVariance() for _ in range(2)]
    for _ in range(50):
        for scale, each in zip(scales, (error, 0.003), strict=True):
            scale.learn(0.01, [1.0] * SCALE_FACTORS, each)
    lucky, small = (scale.variance(0.01, [1.0] * SCALE_FACTORS) for scale in scales)
    assert 0 < lucky == small < 0.01


@pytest.mark.parametrize(
    ("place", "number", "b"),
    [((0, 0), -RIDGE, 1.0), ((0, 2), 1e6, 1.0), ((0, 0), 1.0, 1e308), ((1, 0), 1e308, -1e308)],
)
def test_sums_that_no_responses_make_change_nothing(place: tuple[int, int], number: float, b: float) -> None:
    """Sums from elsewhere that have no solution, or one beyond all numbers, leave the scale as it is."""
    scale, a = LogVariance(), np.zeros((SCALE_FACTORS, SCALE_FACTORS))
    for _ in range(8):
        scale.learn(0.01, [1.0] * SCALE_FACTORS, 0.05)
    before = scale.variance(0.01, [1.0] * SCALE_FACTORS), scale.usual_leverage
    a[place] = number
    scale.load(a, np.full(SCALE_FACTORS, b))
    assert before == (scale.variance(0.01, [1.0] * SCALE_FACTORS), scale.usual_leverage)
