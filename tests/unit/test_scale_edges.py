"""The effect of an error of zero on the scale."""

import pytest

from extproc.core.estimator.scale import SCALE_FACTORS, LogVariance


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
