"""Learned output lengths, including responses that were cut."""

from math import inf, nan
from typing import Literal

import numpy as np
import pytest

from extproc.core.errors import ConfigurationError
from extproc.core.estimator import make_estimator, output_lengths
from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.change import RowChange
from extproc.core.estimator.evidence import Evidence
from extproc.core.estimator.length_counts import BINS, FADING
from extproc.core.estimator.output_lengths import OutputLengths, states_of
from extproc.core.estimator.packing import packed
from extproc.core.estimator.protocol import CategoryKey, OutputState
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.sources import MOST_NUMBER
from extproc.core.facts import Api, RequestFacts
from extproc.core.usage import Usage

CATEGORY = CategoryKey("m", "latin")


def lengths(count: int, limit: int | None = None, default: int = 1_024) -> OutputLengths:
    """Return lengths learned from log-normal outputs around 200 tokens, cut at the limit if one is given."""
    learned = OutputLengths(
        EstimatorSettings(output_epsilon=0.05, max_categories=10, default_output_tokens=default)
    )
    for tokens in np.random.default_rng(0).lognormal(np.log(200), 0.8, count).astype(int).tolist():
        cut = limit is not None and tokens >= limit
        learned.observe(CATEGORY, min(tokens, limit) if limit else tokens, cut=cut)
    return learned


def test_default_until_enough_responses() -> None:
    """Before 1 / epsilon responses the default is used, and a longer response raises it."""
    learned = lengths(5)
    assert learned.expected(CATEGORY) == 1_024
    learned.observe(CATEGORY, 5_000, cut=False)
    assert learned.expected(CATEGORY) >= 5_000
    assert learned.learned(CATEGORY) is None


def test_quantile_of_responses_that_ended() -> None:
    """The learned length is the true quantile, up to a quarter octave above it."""
    truth = 200 * np.exp(0.8 * 1.645)
    assert truth * 0.95 <= lengths(1_500).expected(CATEGORY) <= truth * 1.3


def test_cut_responses_push_the_quantile_up() -> None:
    """A quantile below the cut is as if nothing was cut; one above it becomes twice the limit."""
    assert lengths(1_500, limit=900).expected(CATEGORY) == lengths(1_500).expected(CATEGORY)
    for limit in (350, 700):
        cut = lengths(1_500, limit=limit, default=50)
        assert cut.learned(CATEGORY) is None
        assert 2 * limit <= cut.expected(CATEGORY) <= 2 * limit * 2 ** (1 / 4)


def test_an_unseen_tail_is_at_least_the_default() -> None:
    """Twice the longest length is used only if it is more than the default."""
    assert 2_000 == lengths(1_500, limit=700, default=2_000).expected(CATEGORY)


def test_old_responses_fade() -> None:
    """If a model's responses become ten times as long, so does the expectation, even after a long terse phase."""
    learned = OutputLengths(EstimatorSettings(output_epsilon=0.5, default_output_tokens=1))
    for _ in range(6_000):
        learned.observe(CATEGORY, 100, cut=False)
    assert 100 <= learned.expected(CATEGORY) <= 119
    for _ in range(2_000):
        learned.observe(CATEGORY, 1_000, cut=False)
    assert 1_000 <= learned.expected(CATEGORY) <= 1_190


def test_old_cuts_fade() -> None:
    """Responses that were cut long ago do not hide the tail any more."""
    learned = OutputLengths(EstimatorSettings(output_epsilon=0.5, default_output_tokens=1))
    for _ in range(6_000):
        learned.observe(CATEGORY, 100, cut=True)
    assert learned.learned(CATEGORY) is None
    for _ in range(3_000):
        learned.observe(CATEGORY, 100, cut=False)
    assert 100 <= learned.expected(CATEGORY) <= 119


def test_each_category_has_its_own_lengths() -> None:
    """A tenant with long or short responses does not affect what is expected of others."""
    learned = OutputLengths(EstimatorSettings(output_epsilon=0.1))
    terse, talkative, new = (CategoryKey("m", key) for key in ("terse", "talkative", "new"))
    for _ in range(50):
        learned.observe(terse, 16, cut=False)
        learned.observe(talkative, 4_096, cut=False)
    assert (16, 4_096, 4_096) == tuple(map(learned.expected, (terse, talkative, new)))


def test_a_category_with_few_responses_takes_the_length_of_its_model() -> None:
    """Until a category has 1 / epsilon responses, the length of its model is used."""
    learned = OutputLengths(EstimatorSettings(output_epsilon=0.1))
    for _ in range(50):
        learned.observe(CategoryKey("m", "terse"), 16, cut=False)
    for _ in range(9):
        learned.observe(CATEGORY, 12, cut=False)
    assert 16 == learned.expected(CATEGORY)
    for _ in range(2):
        learned.observe(CATEGORY, 12, cut=False)
    assert 12 < learned.expected(CATEGORY) < 16


def test_requests_with_and_without_a_limit_have_separate_lengths() -> None:
    """Responses to requests with a limit are used for those without one only until there are others."""
    learned = OutputLengths(EstimatorSettings(output_epsilon=0.1, cap_output_tokens=True))
    for _ in range(50):
        learned.observe(CATEGORY, 16, cut=True, declared=True)
        learned.observe(CATEGORY, 12, cut=False, declared=True)
    assert 1_024 == learned.expected(CATEGORY)  # too many of those with a limit were cut
    for _ in range(1_000):
        learned.observe(CATEGORY, 12, cut=False, declared=True)
    assert (14, 14) == (learned.expected(CATEGORY), learned.tokens(500, CATEGORY))
    for _ in range(50):
        learned.observe(CATEGORY, 400, cut=False)
    assert (431, 14) == (learned.expected(CATEGORY), learned.tokens(500, CATEGORY))
    assert 13 > (learned.mean(CATEGORY, declared=True) or 0) > 11
    assert 431 > (learned.mean(CATEGORY) or 0) > 362


def test_the_first_responses_are_not_taken_as_typical() -> None:
    """While the longest responses may still be under way, the default is used, or twice the longest one seen."""
    learned = OutputLengths(EstimatorSettings(output_epsilon=0.1))
    first = learned.estimates
    for _ in range(100):
        learned.tokens(None, CATEGORY)
    for number in range(1, 51):  # the first of them was under way for 99 requests
        learned.observe(CATEGORY, 20, cut=False, number=first + number)
    for _ in range(98):
        assert 1_024 == learned.tokens(None, CATEGORY)
    learned.observe(CATEGORY, 2_000, cut=False, number=first + 120)
    assert 4_096 <= learned.expected(CATEGORY) <= 2 * 2_000 * 2 ** (1 / 4)
    assert 1_024 > learned.tokens(None, CATEGORY)
    learned.observe(CATEGORY, 20, cut=False, number=first + 1)
    assert 1_024 > learned.expected(CATEGORY)  # however long others take, the tail was seen


def test_numbers_of_other_processes_say_nothing() -> None:
    """Responses to requests that another process estimated, as its log entries bring them, delay nothing."""
    learned = OutputLengths(EstimatorSettings(output_epsilon=0.1))
    first = learned.estimates
    for number in range(1, 61):
        learned.tokens(None, CATEGORY)
        learned.observe(CATEGORY, 20, cut=False, number=first + max(1, number - 9))
        learned.observe(CATEGORY, 20, cut=False, number=first - 1_000 + number)
        learned.observe(CATEGORY, 20, cut=False, number=first + 1_000 + number)
    assert 23 == learned.expected(CATEGORY)


def test_numbers_begin_again_after_the_largest_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """None has more digits than the access log has room for, and responses are in flight as long as ever."""
    monkeypatch.setattr(output_lengths, "FIRST", MOST_NUMBER - 40)
    learned, numbers = OutputLengths(EstimatorSettings(output_epsilon=0.1)), []
    for _ in range(100):
        learned.tokens(None, CATEGORY)
        numbers.append(learned.number)
    assert [*range(MOST_NUMBER - 39, MOST_NUMBER + 1), *range(60)] == numbers
    for number in numbers[:50]:  # the first of them was under way for 99 requests
        learned.observe(CATEGORY, 20, cut=False, number=number)
    for _ in range(98):
        assert 1_024 == learned.tokens(None, CATEGORY)
    learned.tokens(None, CATEGORY)
    assert 23 == learned.expected(CATEGORY)


@pytest.mark.parametrize("kind", ["byteclass", "ema"])
@pytest.mark.parametrize("exact", [None, 9])
def test_the_evidence_of_an_estimate_has_a_number_that_the_access_log_has_room_for(
    kind: Literal["byteclass", "ema"], exact: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the kind of estimator, and whether tokens are estimated or given."""
    monkeypatch.setattr(output_lengths, "FIRST", MOST_NUMBER)
    estimator = make_estimator(EstimatorSettings(kind=kind))
    for number in (0, 1):
        estimate = estimator.estimate(RequestFacts(Api.CHAT, "m", b"Hi", exact_prompt_tokens=exact), "")
        assert isinstance(estimate.evidence, Evidence)
        assert number == estimate.evidence.number


def test_lengths_learned_by_others_are_used_at_once() -> None:
    """Loaded lengths, and ones shared by a router with more responses, are used without waiting."""
    learned, other, young = (OutputLengths(EstimatorSettings(output_epsilon=0.1)) for _ in range(3))
    for _ in range(50):
        other.observe(CATEGORY, 20, cut=False)
    learned.load(states_of(other.rows()))
    learned.tokens(None, CATEGORY)
    learned.observe(CATEGORY, 20, cut=False, number=learned.number)
    assert 23 == learned.expected(CATEGORY)
    first = young.estimates
    for _ in range(9):
        young.tokens(None, CATEGORY)
    for number in range(1, 10):
        young.observe(CATEGORY, 20, cut=False, number=first + number)
    counts = np.zeros(2 * BINS)
    counts[18] = 30.0
    assert 1_024 == young.expected(CATEGORY)
    for key in ("", "latin"):
        assert young.shift(RowChange(CategoryKey("m", key), 9, 30, counts))
    assert 23 == young.expected(CATEGORY)


def test_cuts_take_effect_within_tens_of_responses() -> None:
    """After thousands of short responses, thirty that were cut raise the length to twice their limit."""
    learned = OutputLengths(EstimatorSettings())
    for _ in range(5_000):
        learned.observe(CATEGORY, 100, cut=False)
    assert learned.expected(CATEGORY) <= 119
    for _ in range(30):
        learned.observe(CATEGORY, 4_096, cut=True)
    assert learned.expected(CATEGORY) >= 2 * 4_096


def test_counts_stay_finite_over_a_hundred_thousand_responses() -> None:
    """Counts fade because their unit grows; they are rescaled before the unit overflows."""
    learned = OutputLengths(EstimatorSettings())
    for _ in range(100_000):
        learned.observe(CATEGORY, 100, cut=False)
    state, _ = states_of(learned.rows())
    assert 1 / (1 - FADING) == pytest.approx(np.frombuffer(state.ended).sum(), rel=1e-6)
    assert 100_000 == state.observations


@pytest.mark.parametrize(("tokens", "expected"), [(1, 1), (2, 2), (3, 4), (100, 108), (128, 128), (129, 153)])
def test_a_length_is_rounded_up_to_its_bin(tokens: int, expected: int) -> None:
    """Bins are a quarter octave wide, and their upper end is used, so no length is underestimated."""
    learned = OutputLengths(EstimatorSettings(output_epsilon=0.1))
    for _ in range(20):
        learned.observe(CATEGORY, tokens, cut=False)
    assert expected == learned.expected(CATEGORY)


@pytest.mark.parametrize("tokens", [1 << 20, (1 << 20) + 1, 10_000_000, 1 << 60])
def test_lengths_beyond_a_million_are_a_million(tokens: int) -> None:
    """The last bin holds all lengths above any context."""
    learned = OutputLengths(EstimatorSettings(output_epsilon=0.1))
    for _ in range(20):
        learned.observe(CATEGORY, tokens, cut=False)
    assert 1 << 20 == learned.expected(CATEGORY)


@pytest.mark.parametrize("tokens", [0, -1])
def test_responses_without_output_are_ignored(tokens: int) -> None:
    """Embeddings have no output, and must not shorten the lengths of others."""
    learned = OutputLengths(EstimatorSettings(output_epsilon=0.1))
    for _ in range(20):
        learned.observe(CATEGORY, tokens, cut=False)
    assert () == states_of(learned.rows())


NONE = (0.0,) * BINS


@pytest.mark.parametrize("counts", [(-1.0, *NONE[1:]), (*NONE[1:], -0.5), (nan, *NONE[1:]), (inf, *NONE[1:])])
@pytest.mark.parametrize("which", ["ended", "cut"])
def test_invalid_counts_are_not_loaded(counts: tuple[float, ...], which: str) -> None:
    """A state with negative or infinite counts is refused as a whole."""
    good = OutputState(CategoryKey("m", ""), packed(np.ones(BINS)), packed(np.ones(BINS)))
    ended, cut = (counts, NONE) if which == "ended" else (NONE, counts)
    broken = OutputState(CATEGORY, packed(ended), packed(cut))
    learned = OutputLengths(EstimatorSettings())
    with pytest.raises(ConfigurationError, match="of model 'm' are not valid counts"):
        learned.load((good, broken))
    assert () == states_of(learned.rows())


@pytest.mark.parametrize(
    ("ended", "cut"), [(NONE[1:], NONE), (NONE, NONE[1:]), ((*NONE, 0.0), NONE), (NONE, (*NONE, 0.0))]
)
def test_counts_in_other_bins_are_not_loaded(ended: tuple[float, ...], cut: tuple[float, ...]) -> None:
    """Too many or too few bins in either list of counts are refused."""
    with pytest.raises(ConfigurationError, match="bins"):
        OutputLengths(EstimatorSettings()).load((OutputState(CATEGORY, packed(ended), packed(cut)),))


def test_a_loaded_model_without_responses_is_as_new() -> None:
    """If all counts are zero, the default is used."""
    learned = OutputLengths(EstimatorSettings())
    learned.load((OutputState(CategoryKey("m", ""), packed(NONE), packed(NONE)),))
    assert 1_024 == learned.expected(CATEGORY)


def test_a_new_category_starts_from_its_model() -> None:
    """For a category without responses the length of its model is used."""
    learned = lengths(500)
    assert learned.expected(CategoryKey("m", "other")) == learned.expected(CATEGORY)
    assert learned.expected(CategoryKey("another", "latin")) == 1_024


def test_state_round_trips() -> None:
    """Loaded lengths equal the saved ones; counts with another number of bins are refused."""
    learned, other = lengths(300), OutputLengths(EstimatorSettings(output_epsilon=0.05))
    other.load(states_of(learned.rows()))
    assert states_of(other.rows()) == states_of(learned.rows())
    assert other.expected(CATEGORY) == learned.expected(CATEGORY)
    with pytest.raises(ConfigurationError, match="bins"):
        other.load((OutputState(CATEGORY, packed([1.0]), packed([1.0])),))


@pytest.mark.parametrize("limit", [16, 100])
def test_responses_that_were_all_cut_do_not_lower_the_default(limit: int) -> None:
    """Limits of a few tokens do not show how long responses would get, so the default stays."""
    learned = OutputLengths(EstimatorSettings(output_epsilon=0.05))
    for _ in range(500):
        learned.observe(CATEGORY, limit, cut=True)
    assert 1_024 == learned.expected(CATEGORY)
    assert None is learned.learned(CATEGORY)


def test_the_number_of_output_categories_is_limited() -> None:
    """Tenants above the maximum evict the least recently used ones."""
    learned = OutputLengths(EstimatorSettings(max_categories=10))
    for number in range(100):
        learned.observe(CategoryKey("m", f"tenant {number}"), 50, cut=False)
    assert 10 == len(states_of(learned.rows()))


def estimate_output(estimator: ByteClassEstimator, declared: int | None) -> int:
    """Return the estimated output tokens of a request with this limit."""
    facts = RequestFacts(Api.CHAT, "m", b"hello there", max_output_tokens=declared)
    return estimator.estimate(facts, "").output_tokens


def test_estimator_learns_output_and_counts_truncation() -> None:
    """Undeclared output is learned from responses; cuts by the pool are counted per model and reported."""
    estimator = ByteClassEstimator(EstimatorSettings(output_epsilon=0.1))
    facts = RequestFacts(Api.CHAT, "m", b"hello there", messages=1)
    for _ in range(30):
        estimator.observe(estimator.estimate(facts, ""), Usage(10, 50))
    learning = estimator.observe(estimator.estimate(facts, ""), Usage(10, 90, cut_by_length=True), 100)
    assert learning.truncated_by_pool
    assert estimator.state().models[0].truncated_by_pool == 1
    assert 50 <= estimate_output(estimator, None) <= 64
    assert estimate_output(estimator, 4_096) == 4_096


def test_responses_truncated_by_a_pool_raise_the_expected_output() -> None:
    """If the short pool cuts many responses, undeclared output is expected to be longer than the pool holds."""
    estimator = ByteClassEstimator(EstimatorSettings(output_epsilon=0.1))
    facts = RequestFacts(Api.CHAT, "m", b"hello there", messages=1)
    for position in range(100):
        usage = Usage(10, 90, cut_by_length=True) if position % 4 == 0 else Usage(10, 50)
        estimator.observe(estimator.estimate(facts, ""), usage, 100)
    assert estimate_output(estimator, None) >= 180
    assert 25 == estimator.state().models[0].truncated_by_pool


def test_the_ema_learns_output_too() -> None:
    """Output lengths do not depend on how prompts are estimated."""
    estimator = make_estimator(EstimatorSettings(kind="ema", output_epsilon=0.1))
    facts = RequestFacts(Api.CHAT, "m", b"hello there", messages=1)
    for _ in range(30):
        estimator.observe(estimator.estimate(facts, ""), Usage(10, 50))
    assert 50 <= estimator.estimate(facts, "").output_tokens <= 64
    other = make_estimator(EstimatorSettings(kind="ema", output_epsilon=0.1))
    other.load(estimator.state())
    assert other.state() == estimator.state()


def test_declared_output_may_be_capped() -> None:
    """With cap_output_tokens the expected output is the learned length, but never more than was declared."""
    estimator = ByteClassEstimator(EstimatorSettings(output_epsilon=0.1, cap_output_tokens=True))
    facts = RequestFacts(Api.CHAT, "m", b"hello there", messages=1)
    assert estimate_output(estimator, 4_096) == 4_096
    for _ in range(30):
        estimator.observe(estimator.estimate(facts, ""), Usage(10, 50))
    assert 50 <= estimate_output(estimator, 4_096) <= 64
    assert estimate_output(estimator, 20) == 20


@pytest.mark.parametrize("kind", ["byteclass", "ema"])
def test_output_of_several_sequences_is_not_learned(kind: Literal["byteclass", "ema"]) -> None:
    """Usage is the sum over all sequences of a request, not a length."""
    estimator = make_estimator(EstimatorSettings(kind=kind))
    facts = RequestFacts(Api.CHAT, "m", b"hello there", messages=1, sequences=2)
    assert estimator.observe(estimator.estimate(facts, ""), Usage(10, 90)).refused is None
    assert () == estimator.state().outputs


def test_the_mean_length_is_of_the_category_or_otherwise_of_its_model() -> None:
    """The mean length is known from the first response on, to within the width of a bin."""
    lengths = OutputLengths(EstimatorSettings())
    assert lengths.mean(CategoryKey("m", "a")) is None
    for tokens in (100, 200, 300):
        lengths.observe(CategoryKey("m", "a"), tokens, cut=False)
    lengths.observe(CategoryKey("m", "b"), 2_000, cut=False)
    assert 200 == pytest.approx(lengths.mean(CategoryKey("m", "a")), rel=0.1)
    assert 650 == pytest.approx(lengths.mean(CategoryKey("m", "new")), rel=0.1)


def loaded(epsilon: float = 0.5, default: int = 1_024, **counts: dict[int, float]) -> OutputLengths:
    """Return lengths of one model with these counts by bin."""
    ended, cut = ([counts.get(name, {}).get(index, 0.0) for index in range(BINS)] for name in ("ended", "cut"))
    learned = OutputLengths(EstimatorSettings(output_epsilon=epsilon, default_output_tokens=default))
    learned.load((OutputState(CategoryKey("m", ""), packed(ended), packed(cut)),))
    return learned


def test_a_length_exceeded_by_exactly_the_share_is_learned() -> None:
    """With epsilon 0.5, two responses are enough: half of them are longer than the shorter one."""
    assert 4 == loaded(ended={8: 1.0, 12: 1.0}).learned(CATEGORY)
    assert None is loaded(ended={8: 1.0, 12: 0.9}).learned(CATEGORY)


def test_single_responses_are_counted_where_they_ended() -> None:
    """Slightly faded single counts are still recognised as responses."""
    learned = OutputLengths(EstimatorSettings(output_epsilon=0.5))
    for tokens in (4, 8, 16):
        learned.observe(CATEGORY, tokens, cut=False)
    assert 8 == learned.learned(CATEGORY)


def test_a_tail_in_the_last_bin_was_seen() -> None:
    """Lengths that all end in the last bin, of a million tokens, are learned, and not doubled."""
    assert 1 << 20 == loaded(ended={BINS - 1: 5.0}).learned(CATEGORY)


def test_responses_cut_at_their_first_token() -> None:
    """Twice the longest is two tokens if nothing else is known; without any response it is at most one."""
    assert 2 == loaded(default=0, cut={0: 5.0}).expected(CATEGORY)
    assert loaded(default=0).expected(CATEGORY) <= 1


def test_the_mean_length_counts_cut_responses_as_far_as_they_got() -> None:
    """They would have been at least that long."""
    learned = OutputLengths(EstimatorSettings())
    learned.observe(CATEGORY, 100, cut=False)
    learned.observe(CATEGORY, 300, cut=True)
    assert 200 == pytest.approx(learned.mean(CATEGORY), rel=0.1)
