"""Deciding which streams without requested usage are worth reading, from earlier streams of their model."""

import pytest

from extproc.core.router.unasked import UnaskedUsage, UsageInStreams


def test_three_streams_of_a_model_are_tried() -> None:
    """Reading a stream without usage is wasted work, so after three no more
    are read; each model is counted separately.
    """
    unasked = UnaskedUsage(UsageInStreams.AUTO)
    for _ in range(3):
        assert unasked.is_expected("m")
        unasked.saw("m", usage=False)
    assert not unasked.is_expected("m")
    unasked.saw("m", usage=False)
    assert (False, True) == (unasked.is_expected("m"), unasked.is_expected("other"))


def test_a_model_that_reported_is_read_from_then_on() -> None:
    """This holds even if later streams do not report usage, for example because they were cut."""
    unasked = UnaskedUsage(UsageInStreams.AUTO)
    unasked.saw("m", usage=False)
    unasked.saw("m", usage=True)
    for _ in range(9):
        assert unasked.is_expected("m")
        unasked.saw("m", usage=False)


@pytest.mark.parametrize("policy", [UsageInStreams.ASKED, UsageInStreams.ALWAYS])
def test_the_operators_setting_takes_precedence(policy: UsageInStreams) -> None:
    """The setting applies whatever the streams report."""
    unasked = UnaskedUsage(policy)
    unasked.saw("m", usage=True)
    unasked.saw("other", usage=False)
    expected = policy is UsageInStreams.ALWAYS
    assert (expected, expected) == (unasked.is_expected("m"), unasked.is_expected("other"))
