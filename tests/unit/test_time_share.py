"""How long may be worked on what is not urgent, such as entries of the access log."""

import pytest

from extproc.core.time_share import TimeShare

BURST_S, SLICE_S = 0.02, 0.0005


def test_a_share_is_used_up_and_comes_back() -> None:
    """What was worked is gone until its share of the time has passed."""
    share = TimeShare(BURST_S)
    assert BURST_S == share.left_s(100.0, 0.25)
    share.spend(BURST_S + 0.01)
    assert share.left_s(100.0, 0.25) == pytest.approx(-0.01)
    assert share.wait_s(0.25, SLICE_S) == pytest.approx((0.01 + SLICE_S) / 0.25)
    assert share.left_s(100.04, 0.25) == pytest.approx(0.0)


def test_what_is_not_used_is_not_hoarded() -> None:
    """However long nothing came, no more than a burst is there."""
    share = TimeShare(BURST_S)
    share.left_s(0.0, 1.0)
    assert BURST_S == share.left_s(1_000.0, 1.0)
