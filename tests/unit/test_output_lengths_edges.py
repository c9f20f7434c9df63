"""Output lengths learned by other routers: their weight, and errors for invalid ones."""

import numpy as np
import pytest

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.change import RowChange
from extproc.core.estimator.length_counts import BINS, FADING, LengthCounts
from extproc.core.estimator.output_lengths import OutputLengths, states_of
from extproc.core.estimator.packing import packed, unpacked
from extproc.core.estimator.protocol import CategoryKey, OutputState
from extproc.core.estimator.settings import EstimatorSettings

KEY = CategoryKey("m", "latin")


def test_lengths_in_other_bins_are_refused_with_both_numbers() -> None:
    """The message has the numbers for responses that ended and for ones that were cut."""
    state = OutputState(KEY, packed(np.zeros(80)), packed(np.zeros(82)), 1)
    with pytest.raises(ConfigurationError, match=rf"have 80 and 82 bins, not {BINS}"):
        OutputLengths(EstimatorSettings()).load((state,))


@pytest.mark.parametrize("age", [0, 40])
def test_changes_of_others_fade_by_the_responses_since(age: int) -> None:
    """A change fades by the number of responses since the one that it is based on."""
    lengths = OutputLengths(EstimatorSettings())
    for _ in range(100):
        lengths.observe(KEY, 50, cut=False)
    before = sum(unpacked(state.ended).sum() for state in states_of(lengths.rows()) if state.category == KEY)
    counts = np.zeros(2 * BINS)
    counts[7] = 10.0
    assert lengths.shift(RowChange(KEY, 100 - age, 10, counts))
    after = sum(unpacked(state.ended).sum() for state in states_of(lengths.rows()) if state.category == KEY)
    assert 10 * FADING**age == pytest.approx(after - before)


def test_cut_responses_fade_and_add_up_like_others() -> None:
    """Their counts use the same unit, before and after others are added."""
    lengths = OutputLengths(EstimatorSettings())
    for _ in range(3):
        lengths.observe(KEY, 50, cut=True)
    counts = np.zeros(2 * BINS)
    counts[BINS + 7] = 10.0
    for position, added in enumerate((0.0, 10.0)):
        assert lengths.shift(RowChange(KEY, 3 + 10 * position, 10, position * counts))
        (cut,) = (unpacked(state.cut) for state in states_of(lengths.rows()) if state.category == KEY)
        assert pytest.approx((1 + FADING + FADING**2 + added, added)) == (cut.sum(), cut[7])


def test_a_change_that_takes_more_than_there_is_leaves_nothing() -> None:
    """Counts and their number stay at zero or above, whatever other routers subtract."""
    lengths = OutputLengths(EstimatorSettings())
    lengths.observe(KEY, 50, cut=False)
    assert lengths.shift(RowChange(KEY, 0, -9, np.full(2 * BINS, -9.0)))
    (state,) = [state for state in states_of(lengths.rows()) if state.category == KEY]
    assert (0, 0.0) == (state.observations, unpacked(state.ended).sum())


def test_a_change_of_others_moves_the_expected_length_at_once() -> None:
    """What was looked up before is looked up again."""
    lengths = OutputLengths(EstimatorSettings())
    for _ in range(2_000):
        lengths.tokens(100, KEY)
        lengths.observe(KEY, 50, cut=False, number=lengths.number)
    assert 54 == lengths.expected(KEY)
    counts = np.zeros(2 * BINS)
    counts[40] = 1_000.0
    assert lengths.shift(RowChange(KEY, 2_000, 1_000, counts))
    assert 1_024 == lengths.expected(KEY)


@pytest.mark.parametrize(("declared", "prefix"), [(False, ""), (True, "declared\x1f")])
def test_lengths_are_kept_under_their_own_keys(declared: bool, prefix: str) -> None:  # noqa: FBT001
    """Responses to requests that declare a limit are stored apart, under keys that no tenant can have."""
    lengths = OutputLengths(EstimatorSettings())
    lengths.observe(CategoryKey("a model of its own", "latin"), 50, cut=False, declared=declared)
    expected = {CategoryKey("a model of its own", prefix), CategoryKey("a model of its own", prefix + "latin")}
    assert expected == {state.category for state in states_of(lengths.rows())}


def test_counts_stay_finite_over_any_number_of_responses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The growing unit of the counts is settled long before it overflows: here after 40 responses."""
    monkeypatch.setattr("extproc.core.estimator.length_counts.FADING", 0.5)
    lengths = LengthCounts(0.01)
    for _ in range(3_000):
        lengths.learn(100, cut=False)
    assert 2.0 == pytest.approx(lengths.ended.sum())
    assert 2.0 == pytest.approx(lengths.responses)


@pytest.mark.parametrize(("others", "ripe"), [(1, False), (2, True)])
def test_a_few_responses_of_others_do_not_make_up_for_long_ones_in_flight(others: int, ripe: bool) -> None:  # noqa: FBT001
    """Only if others added more responses than there are here, long ones must be among them."""
    lengths = LengthCounts(0.01)
    lengths.learn(100, cut=False)
    lengths.wait(1, 100)
    counts = np.zeros(2 * BINS)
    lengths.shift(counts, others, 1)
    assert ripe is lengths.is_ripe(101)
