"""The weight of a residual, and the limits when others' contributions are subtracted."""

import pytest

from extproc.core.estimator.residual import FIRST_SPREAD, Residual, natural_weight


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
