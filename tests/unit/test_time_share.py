"""The time that may be spent on work that is not urgent, such as access log entries."""

import pytest

from extproc.core.time_share import TimeShare

BURST_S, SLICE_S = 0.02, 0.0005


def test_a_share_is_used_up_and_becomes_available_again() -> None:
    """Time that was spent becomes available again as its share of the elapsed time."""
    share = TimeShare(BURST_S)
    assert BURST_S == share.left_s(100.0, 0.25)
    share.spend(BURST_S + 0.01)
    assert share.left_s(100.0, 0.25) == pytest.approx(-0.01)
    assert share.wait_s(0.25, SLICE_S) == pytest.approx((0.01 + SLICE_S) / 0.25)
    assert share.left_s(100.04, 0.25) == pytest.approx(0.0)


def test_unused_time_does_not_accumulate() -> None:
    """After any idle time, no more than one burst is available."""
    share = TimeShare(BURST_S)
    share.left_s(0.0, 1.0)
    assert BURST_S == share.left_s(1_000.0, 1.0)
