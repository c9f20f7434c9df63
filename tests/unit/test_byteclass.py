"""The byte-class estimator as a whole: what it promises for any input, and that it learns."""

from dataclasses import replace
from math import exp, isfinite

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.errors import ConfigurationError
from extproc.core.estimator import make_estimator
from extproc.core.estimator.bound import AdaptiveBound
from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.features import features, structure_tokens
from extproc.core.estimator.protocol import Estimate, Source
from extproc.core.estimator.settings import ByteClassSettings, EstimatorSettings
from extproc.core.facts import Api, MediaCount, RequestFacts
from extproc.core.text import digrams
from extproc.core.usage import Overflow, Usage

WORDS = b"the quick brown fox jumps over the lazy dog while 12 other animals (mostly cats) watch from far away; "


def facts(text: bytes, **others: object) -> RequestFacts:
    """Return the facts of a chat with this text."""
    return replace(RequestFacts(Api.CHAT, "m", text, messages=1), **others)  # type: ignore[arg-type]


def teach(estimator: ByteClassEstimator, count: int, ratio: float = 4.0, seed: int = 0) -> Estimate:
    """Let answers of prose teach an estimator so many bytes per token; return the last estimate."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        start, size = rng.integers(0, 50), int(rng.integers(200, 4_000))
        text = (WORDS * 42)[start : start + size]
        estimate = estimator.estimate(facts(text), "")
        estimator.observe(estimate, Usage(max(1, round(len(text) / ratio * rng.normal(1, 0.03)))))
    return estimate


def test_prior_is_marked_as_such() -> None:
    """An estimate says whether it rests on nothing, on few answers, or on many."""
    estimator = ByteClassEstimator(EstimatorSettings(young_observations=10))
    sources = [teach(estimator, count).source for count in (1, 2, 20)]
    assert sources == [Source.PRIOR, Source.YOUNG, Source.LEARNED]


def test_learns_the_price_of_text() -> None:
    """After some hundred answers the error is that of the noise."""
    estimator = ByteClassEstimator(EstimatorSettings())
    teach(estimator, 300, ratio=5.5)
    estimate = estimator.estimate(facts(WORDS * 20), "")
    assert estimate.prompt_tokens == pytest.approx(len(WORDS) * 20 / 5.5, rel=0.02)
    assert estimate.prompt_bound <= 1.2 * estimate.prompt_tokens


def test_token_ids_are_exact() -> None:
    """A prompt of token ids is counted, not estimated, and teaches nothing about text."""
    estimator = ByteClassEstimator(EstimatorSettings())
    estimate = estimator.estimate(facts(b"", exact_prompt_tokens=123), "")
    learning = estimator.observe(estimate, Usage(123))
    assert (estimate.prompt_tokens, estimate.prompt_bound, estimate.source) == (123, 123, Source.EXACT)
    assert learning.refused == "exact"
    assert estimator.state().models == ()


@given(st.binary(max_size=3_000), st.lists(st.tuples(st.binary(max_size=300), st.integers(1, 10**7)), max_size=8))
@settings(max_examples=60, deadline=None)
def test_predictions_stay_within_physical_limits(text: bytes, lessons: list[tuple[bytes, int]]) -> None:
    """For arbitrary bytes: within the limits of bytes; finite and ordered whatever usage was learned."""
    estimator = ByteClassEstimator(EstimatorSettings())
    assert estimator.estimate(facts(text), "").prompt_bound <= len(text) + 4 * (4 + 4) + 256
    for lesson, tokens in lessons:
        estimator.observe(estimator.estimate(facts(lesson), ""), Usage(tokens))
    estimate = estimator.estimate(facts(text), "")
    assert isfinite(estimate.prompt_bound)
    assert len(text) / 16 <= estimate.prompt_tokens <= estimate.prompt_bound


@given(st.integers(1, 10**6), st.lists(st.tuples(st.binary(max_size=300), st.integers(1, 10**5)), max_size=5))
@settings(max_examples=40, deadline=None)
def test_token_ids_stay_exact_whatever_was_learned(tokens: int, lessons: list[tuple[bytes, int]]) -> None:
    """A count of ids is the estimate and its bound, for any count and after any answers."""
    estimator = ByteClassEstimator(EstimatorSettings())
    for lesson, told in lessons:
        estimator.observe(estimator.estimate(facts(lesson), ""), Usage(told))
    estimate = estimator.estimate(facts(b"", exact_prompt_tokens=tokens), "")
    assert (tokens, tokens) == (estimate.prompt_tokens, estimate.prompt_bound)


@given(st.binary(max_size=2_000), st.lists(st.tuples(st.binary(max_size=300), st.integers(1, 10**5)), max_size=8))
@settings(max_examples=40, deadline=None)
def test_the_bound_is_within_what_bytes_and_learned_prices_allow(
    text: bytes, lessons: list[tuple[bytes, int]]
) -> None:
    """After any answers the bound is at most a token per byte, and four times what is priced beside the text."""
    estimator = ByteClassEstimator(EstimatorSettings())
    for lesson, tokens in lessons:
        estimator.observe(estimator.estimate(facts(lesson), ""), Usage(tokens))
    asked = facts(text)
    beside = structure_tokens(features(asked, digrams(text)), estimator.prices("m"))
    assert estimator.estimate(asked, "").prompt_bound <= len(text) + 4 * max(beside, 8) + 256 + 1e-6


@given(
    st.floats(1, 1e6),
    st.lists(st.booleans(), max_size=30),
    st.floats(0, 3),
    st.floats(0, 3),
    st.floats(1e-4, 0.5),
)
@settings(max_examples=60)
def test_bound_is_monotone(tokens: float, misses: list[bool], narrow: float, more: float, epsilon: float) -> None:
    """Never below the estimate; higher for a wider scale and after a miss, no higher after a hit."""
    bound = AdaptiveBound(epsilon)
    for missed in misses:
        before = bound.above(tokens, narrow)
        bound.observe(missed=missed)
        after = bound.above(tokens, narrow)
        assert after >= before if missed else after <= before
        assert tokens <= after <= bound.above(tokens, narrow + more) <= bound.above(2 * tokens, narrow + more)


@pytest.mark.parametrize("epsilon", [0.01, 0.05])
def test_bound_keeps_its_rate(epsilon: float) -> None:
    """The share of prompts above their bound is the chosen one, though the noise doubles halfway."""
    estimator = ByteClassEstimator(EstimatorSettings(byteclass=ByteClassSettings(epsilon=epsilon)))
    rng = np.random.default_rng(7)
    misses = 0
    for position in range(3_000):
        estimate = estimator.estimate(facts(WORDS * int(rng.integers(1, 9))), "")
        tokens = round(estimate.evidence.text_bytes / 4 * exp(rng.normal(0, 0.03 if position < 1_500 else 0.06)))  # type: ignore[attr-defined]
        misses += estimator.observe(estimate, Usage(tokens)).under_counted
    assert misses / 3_000 == pytest.approx(epsilon, abs=0.002)


def test_broken_usage_moves_next_to_nothing() -> None:
    """One answer in fifty that is off by ten times leaves the estimate within one percent, and is counted.

    Ten times too many are clipped; ten times too few are fewer than any tokenizer makes, and refused.
    """
    clean, poisoned = ByteClassEstimator(EstimatorSettings()), ByteClassEstimator(EstimatorSettings())
    for estimator in (clean, poisoned):
        teach(estimator, 100)
    for position in range(200):
        text = WORDS * (1 + position % 9)
        for estimator in (clean, poisoned):
            broken = estimator is poisoned and position % 50 == 7
            factor = (10 if position % 100 == 7 else 0.1) if broken else 1
            learning = estimator.observe(estimator.estimate(facts(text), ""), Usage(round(len(text) / 4 * factor)))
            assert ("implausible" if factor < 1 else None) == learning.refused
    expected = clean.estimate(facts(WORDS * 10), "").prompt_tokens
    assert poisoned.estimate(facts(WORDS * 10), "").prompt_tokens == pytest.approx(expected, rel=0.01)
    assert 2 == poisoned.state().models[0].clipped - clean.state().models[0].clipped


def test_a_changed_tokenizer_is_followed() -> None:
    """A model name that gets another tokenizer is learned anew within some dozens of answers."""
    estimator = ByteClassEstimator(EstimatorSettings())
    teach(estimator, 500, ratio=4.0)
    teach(estimator, 60, ratio=1.6, seed=1)
    estimate = estimator.estimate(facts(WORDS * 20), "")
    assert estimate.prompt_tokens == pytest.approx(len(WORDS) * 20 / 1.6, rel=0.1)


def test_one_percent_of_broken_usage_hardly_adds_to_the_error() -> None:
    """With usage ten times too high or too low in 1 % of answers the error grows by less than a tenth."""

    def error(poisoned_share: float) -> float:
        estimator = ByteClassEstimator(EstimatorSettings())
        rng, errors = np.random.default_rng(11), []
        for position in range(1_000):
            text = (WORDS * 42)[int(rng.integers(0, 50)) :][: int(rng.integers(200, 4_000))]
            actual = max(1, round(len(text) / 4 * rng.normal(1, 0.04)))
            poisoned, factor = rng.random() < poisoned_share, rng.choice((10, 0.1))
            estimate = estimator.estimate(facts(text), "")
            if position >= 300:
                errors.append(abs(estimate.prompt_tokens / actual - 1))
            estimator.observe(estimate, Usage(max(1, round(actual * factor)) if poisoned else actual))
        return float(np.mean(errors))

    assert error(0.01) < 1.1 * error(0.0)


def test_the_numbers_stay_sound_over_months_of_one_request() -> None:
    """Thousands of equal answers, and then others, leave prices that are finite, and no update refused."""
    estimator = ByteClassEstimator(EstimatorSettings())
    same = facts(WORDS * 9, tools=2)
    for _ in range(2_000):
        estimator.observe(estimator.estimate(same, ""), Usage(250))
    teach(estimator, 300, ratio=4.5)
    (model,) = estimator.state().models
    assert 0 == model.refused
    assert np.isfinite(estimator.prices("m")).all()
    assert estimator.estimate(facts(WORDS * 20), "").prompt_tokens == pytest.approx(
        len(WORDS) * 20 / 4.5, rel=0.05
    )


def test_a_model_that_starts_anew_is_young_again() -> None:
    """After another tokenizer showed up, sources, priority in learning, and the bound are those of a new model."""
    estimator = ByteClassEstimator(EstimatorSettings())
    teach(estimator, 500, ratio=4.0)
    sources = [teach(estimator, 1, ratio=1.6, seed=seed).source for seed in range(20)]
    assert (Source.LEARNED, Source.YOUNG) == (sources[0], sources[-1])
    (model,) = estimator.state().models
    assert model.observations < 20
    assert model.q <= 4.0


def test_a_second_change_is_followed_too() -> None:
    """A tokenizer that goes and comes back is learned anew each time."""
    estimator = ByteClassEstimator(EstimatorSettings())
    for seed, ratio in enumerate((4.0, 1.6, 4.0)):
        teach(estimator, 150, ratio=ratio, seed=seed)
    estimate = estimator.estimate(facts(WORDS * 20), "")
    assert estimate.prompt_tokens == pytest.approx(len(WORDS) * 20 / 4.0, rel=0.1)


@pytest.mark.parametrize("in_flight", [1, 300])
def test_answers_that_come_late_are_not_learned_over_and_over(in_flight: int) -> None:
    """With any number of requests on their way, a jump of all counts by a third leaves the bound narrow.

    Each of them was estimated before the first answer told; only the first tell something new.
    """
    estimator = ByteClassEstimator(EstimatorSettings())
    rng = np.random.default_rng(3)
    waiting: list[tuple[Estimate, int]] = []
    widths = []
    for position in range(4_000):
        text = (WORDS * 42)[int(rng.integers(0, 50)) :][: int(rng.integers(200, 4_000))]
        actual = max(1, round(len(text) / (4.0 if position < 1_500 else 3.0) * rng.normal(1, 0.03)))
        waiting.append((estimator.estimate(facts(text), ""), actual))
        if len(waiting) > in_flight:
            estimate, counted = waiting.pop(0)
            estimator.observe(estimate, Usage(counted))
        if position >= 3_000:
            widths.append(waiting[-1][0].prompt_bound / actual - 1)
    assert np.mean(widths) < 0.16


def test_counts_at_the_physical_limit_do_not_widen_the_bound() -> None:
    """Where the bound is as high as it can be, a miss says nothing of the multiple: text of 1 byte per token."""
    estimator = ByteClassEstimator(EstimatorSettings())
    teach(estimator, 300)
    before = estimator.state().models[0].q
    for _ in range(300):
        estimator.observe(estimator.estimate(facts(WORDS * 4), ""), Usage(len(WORDS) * 4 * 10))
    teach(estimator, 300)
    assert estimator.state().models[0].q < before + 6


@pytest.mark.parametrize("too_small", [1, 10, 25])
def test_fewer_tokens_than_any_tokenizer_makes_teach_nothing(too_small: int) -> None:
    """A counter that reports next to nothing, for as long as it likes, leaves the prices as they are."""
    estimator = ByteClassEstimator(EstimatorSettings())
    teach(estimator, 200)
    before = estimator.estimate(facts(WORDS * 20), "").prompt_tokens
    for _ in range(300):
        learning = estimator.observe(estimator.estimate(facts(WORDS * 20), ""), Usage(too_small))
        assert "implausible" == learning.refused
    assert before == estimator.estimate(facts(WORDS * 20), "").prompt_tokens


def test_a_refusal_is_measured_against_what_is_believed_now() -> None:
    """A refusal that is late, and names less than was learned meanwhile, teaches nothing."""
    estimator = ByteClassEstimator(EstimatorSettings())
    early = estimator.estimate(facts(WORDS * 10), "")
    teach(estimator, 300, ratio=3.0)
    before = estimator.state()
    estimator.observe_overflow(early, Overflow(at_least_prompt_tokens=round(len(WORDS) * 10 / 3.5)))
    assert before == estimator.state()


def test_refusal_for_length_raises_an_estimate() -> None:
    """A refusal that names "at least N tokens" teaches when N is above the estimate, and nothing when below."""
    estimator = ByteClassEstimator(EstimatorSettings())
    teach(estimator, 100)
    before = estimator.estimate(facts(WORDS * 10), "")
    estimator.observe_overflow(before, Overflow(at_least_prompt_tokens=10))
    estimator.observe_overflow(before, Overflow())
    unmoved = estimator.estimate(facts(WORDS * 10), "").prompt_tokens
    estimator.observe_overflow(before, Overflow(at_least_prompt_tokens=round(before.prompt_tokens * 1.1)))
    assert unmoved == before.prompt_tokens
    assert estimator.estimate(facts(WORDS * 10), "").prompt_tokens > unmoved


def test_a_hidden_system_prompt_is_learned() -> None:
    """A server that puts 3,000 tokens before every chat is followed, far beyond what the bytes could hold."""
    estimator = ByteClassEstimator(EstimatorSettings())
    for position in range(150):
        text = WORDS * (1 + position % 5)
        estimator.observe(estimator.estimate(facts(text), ""), Usage(3_000 + len(text) // 4))
    assert estimator.estimate(facts(WORDS * 2), "").prompt_tokens == pytest.approx(3_050, rel=0.1)


@pytest.mark.parametrize("tokens", [0, -5, 10**8])
def test_impossible_usage_is_refused(tokens: int) -> None:
    """Counts that no model can have are named and teach nothing."""
    estimator = ByteClassEstimator(EstimatorSettings())
    learning = estimator.observe(estimator.estimate(facts(WORDS), ""), Usage(tokens))
    assert learning.refused == "implausible"
    assert estimator.state().models == ()


@pytest.mark.parametrize(
    ("others", "refused"),
    [({"truncate_prompt_tokens": 10}, "truncated"), ({"unseen_history": True}, "unseen_history")],
)
def test_usage_that_does_not_belong_to_the_text_teaches_nothing(others: dict[str, object], refused: str) -> None:
    """A prompt that the server cuts, or adds turns to, says nothing of the price of its text."""
    estimator = ByteClassEstimator(EstimatorSettings())
    learning = estimator.observe(estimator.estimate(facts(WORDS, **others), ""), Usage(10))
    assert learning.refused == refused
    assert estimator.state().models == ()


def test_images_are_priced_and_their_price_is_learned() -> None:
    """An image starts at its configured price and moves to what it really costs."""
    estimator = ByteClassEstimator(EstimatorSettings())
    with_image = facts(WORDS * 4, media=MediaCount(medium_images=1))
    first = (
        estimator.estimate(with_image, "").prompt_tokens - estimator.estimate(facts(WORDS * 4), "").prompt_tokens
    )
    for _ in range(60):
        estimator.observe(estimator.estimate(facts(WORDS * 4), ""), Usage(100))
        estimator.observe(estimator.estimate(with_image, ""), Usage(400))
    assert first == pytest.approx(1_024)
    assert estimator.estimate(with_image, "").prompt_tokens == pytest.approx(400, rel=0.05)


def test_images_of_each_size_have_a_price_of_their_own() -> None:
    """Mixed traffic with small and large images teaches both prices, to a model that charges by pixels."""
    estimator = ByteClassEstimator(EstimatorSettings())
    small = facts(WORDS * 4, media=MediaCount(small_images=1))
    large = facts(WORDS * 4, media=MediaCount(large_images=1))
    for _ in range(60):
        for asked, tokens in ((facts(WORDS * 4), 100), (small, 166), (large, 2_745)):
            estimator.observe(estimator.estimate(asked, ""), Usage(tokens))
    both = facts(WORDS * 4, media=MediaCount(small_images=2, large_images=2))
    estimates = [estimator.estimate(asked, "").prompt_tokens for asked in (small, large, both)]
    assert estimates == [pytest.approx(tokens, rel=0.05) for tokens in (166, 2_745, 100 + 2 * 66 + 2 * 2_645)]


def test_a_tenant_has_a_residual_of_its_own() -> None:
    """A tenant whose text costs more than its bytes say is estimated higher than others."""
    estimator = ByteClassEstimator(EstimatorSettings())
    for _ in range(400):
        estimator.observe(estimator.estimate(facts(WORDS * 9), "dear"), Usage(260))
        estimator.observe(estimator.estimate(facts(WORDS * 9), "cheap"), Usage(220))
    tokens = [estimator.estimate(facts(WORDS * 9), tenant).prompt_tokens for tenant in ("dear", "cheap")]
    assert tokens == [pytest.approx(260, rel=0.03), pytest.approx(220, rel=0.03)]


def test_state_round_trips_exactly() -> None:
    """An estimator that loads another's state has the same state, and goes on as the other does."""
    one, other = ByteClassEstimator(EstimatorSettings()), ByteClassEstimator(EstimatorSettings())
    teach(one, 250)
    one.observe(
        one.estimate(facts(WORDS, media=MediaCount(audio=1)), "tenant"), Usage(2_000, 77, cut_by_length=True)
    )
    other.load(one.state())
    assert other.state() == one.state()
    teach(one, 20, seed=5)
    teach(other, 20, seed=5)
    estimates = [each.estimate(facts(WORDS * 5), "") for each in (one, other)]
    assert estimates[0].prompt_bound == pytest.approx(estimates[1].prompt_bound, rel=1e-5)


@pytest.mark.parametrize(
    "broken",
    [{"q": float("nan")}, {"spread": float("inf")}, {"residual": float("-inf")}, {"sums_b": (float("nan"),)}],
)
def test_state_with_numbers_that_are_none_is_refused_as_a_whole(broken: dict[str, object]) -> None:
    """A state with NaN or infinity in it changes nothing of the estimator that should load it."""
    one, other = ByteClassEstimator(EstimatorSettings()), ByteClassEstimator(EstimatorSettings())
    teach(one, 20)
    state = one.state()
    if "sums_b" in broken:
        broken = {"sums_b": (float("nan"), *state.models[0].sums_b[1:])}
    with pytest.raises(ConfigurationError, match="finite"):
        other.load(replace(state, models=(replace(state.models[0], **broken),)))  # type: ignore[arg-type]
    assert ByteClassEstimator(EstimatorSettings()).state() == other.state()


def test_state_of_another_kind_is_refused() -> None:
    """State of the EMA, or over other features, is not loaded."""
    estimator = make_estimator(EstimatorSettings())
    ema = make_estimator(EstimatorSettings(kind="ema"))
    with pytest.raises(ConfigurationError, match="'ema'"):
        estimator.load(ema.state())
    with pytest.raises(ConfigurationError, match="features"):
        estimator.load(replace(estimator.state(), features=("x",)))


def test_names_from_clients_cost_nothing_until_an_answer_came() -> None:
    """Estimates for any number of unknown models leave no state behind; answers are capped by max_models."""
    estimator = ByteClassEstimator(EstimatorSettings(max_models=3, max_categories=5))
    for number in range(20):
        estimator.estimate(facts(WORDS, model=f"made up {number}"), "")
    assert estimator.state().models == ()
    for number in range(20):
        request = facts(WORDS, model=f"real {number}")
        estimator.observe(estimator.estimate(request, f"tenant {number}"), Usage(25))
    assert [row.model for row in estimator.state().models] == ["real 17", "real 18", "real 19"]
    assert len(estimator.state().categories) == 5 + 1
