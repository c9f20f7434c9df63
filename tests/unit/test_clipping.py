"""Clipping of errors: how far a single error is trusted."""

from math import log

import pytest

from extproc.core.estimator.clipping import clipped_error


@pytest.mark.parametrize(
    ("error", "scale", "clipped"),
    [
        (0.3, 0.08, 0.3),  # within five scales
        (0.5, 0.08, 0.4),
        (-0.5, 0.08, -0.4),
        (0.5, 0.001, 0.1),  # at least 0.1, however certain the estimate was
        (-0.5, 0.001, -0.1),
        (0.05, 0.001, 0.05),
        (3.0, 1.0, log(2)),  # never more than a factor of two
        (-3.0, 1.0, -log(2)),
    ],
)
def test_an_error_is_clipped_at_five_scales(error: float, scale: float, clipped: float) -> None:
    """The limit is five scales, at least 0.1, at most a factor of two, in both directions."""
    assert pytest.approx(clipped) == clipped_error(error, scale)
