"""The byte-class estimator as a unit: its guarantees for any input, and that it learns."""

from dataclasses import replace
from math import ceil, exp, isfinite, log
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.errors import ConfigurationError
from extproc.core.estimator import make_estimator
from extproc.core.estimator.bound import START, AdaptiveBound
from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.features import FEATURE_NAMES, features
from extproc.core.estimator.packing import DOUBLE_BYTES, packed
from extproc.core.estimator.protocol import Source
from extproc.core.estimator.scale import SCALE_FACTORS
from extproc.core.estimator.settings import ByteClassSettings, EstimatorSettings
from extproc.core.estimator.text import look
from extproc.core.facts import MediaCount
from extproc.core.names import MAX_NAME_CHARS
from extproc.core.usage import Overflow, Usage
from tests.unit.byteclass_lessons import WORDS, facts, structure_tokens, teach


def test_prior_is_marked_as_such() -> None:
    """An estimate says whether it rests on no, few or many responses."""
    estimator = ByteClassEstimator(EstimatorSettings(young_observations=10))
    sources = [teach(estimator, count).source for count in (1, 2, 20)]
    assert sources == [Source.PRIOR, Source.YOUNG, Source.LEARNED]


def test_learns_the_price_of_text() -> None:
    """After a few hundred responses the error is only the noise."""
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
    """For arbitrary bytes, estimates stay within the limits of bytes, finite and ordered, whatever was learned."""
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
    """The number of ids is the estimate and its bound, for any number and after any responses."""
    estimator = ByteClassEstimator(EstimatorSettings())
    for lesson, reported in lessons:
        estimator.observe(estimator.estimate(facts(lesson), ""), Usage(reported))
    estimate = estimator.estimate(facts(b"", exact_prompt_tokens=tokens), "")
    assert (tokens, tokens) == (estimate.prompt_tokens, estimate.prompt_bound)


@given(st.binary(max_size=2_000), st.lists(st.tuples(st.binary(max_size=300), st.integers(1, 10**5)), max_size=8))
@settings(max_examples=40, deadline=None)
def test_the_bound_stays_within_the_limit_of_bytes_and_learned_prices(
    text: bytes, lessons: list[tuple[bytes, int]]
) -> None:
    """After any responses the bound is at most a token per byte plus four times the price of what is not text."""
    estimator = ByteClassEstimator(EstimatorSettings())
    for lesson, tokens in lessons:
        estimator.observe(estimator.estimate(facts(lesson), ""), Usage(tokens))
    asked = facts(text)
    outside = structure_tokens(features(asked, look(text)), estimator.prices("m"))
    assert estimator.estimate(asked, "").prompt_bound <= len(text) + 4 * max(outside, 8) + 256 + 1e-6


@given(
    st.floats(1, 1e6),
    st.lists(st.booleans(), max_size=30),
    st.floats(0, 3),
    st.floats(0, 3),
    st.floats(1e-4, 0.5),
)
@settings(max_examples=60)
def test_bound_is_monotone(tokens: float, misses: list[bool], narrow: float, more: float, epsilon: float) -> None:
    """The bound is never below the estimate; a wider scale or a miss raises it, and a hit does not."""
    bound = AdaptiveBound(epsilon)
    for missed in misses:
        before = bound.above(tokens, narrow)
        bound.observe(bound.q + (1 if missed else -1))
        after = bound.above(tokens, narrow)
        assert after >= before if missed else after <= before
        assert tokens <= after <= bound.above(tokens, narrow + more) <= bound.above(2 * tokens, narrow + more)


@pytest.mark.parametrize("epsilon", [0.01, 0.05])
def test_bound_keeps_its_rate(epsilon: float) -> None:
    """The share of prompts above their bound is the configured one, though the noise doubles halfway."""
    estimator = ByteClassEstimator(EstimatorSettings(byteclass=ByteClassSettings(epsilon=epsilon)))
    rng = np.random.default_rng(7)
    misses = 0
    for position in range(3_000):
        estimate = estimator.estimate(facts(WORDS * int(rng.integers(1, 9))), "")
        tokens = round(estimate.evidence.text_bytes / 4 * exp(rng.normal(0, 0.03 if position < 1_500 else 0.06)))  # type: ignore[attr-defined]
        misses += estimator.observe(estimate, Usage(tokens)).under_counted
    assert misses / 3_000 == pytest.approx(epsilon, abs=0.002)


def test_a_refusal_is_compared_with_the_current_estimate() -> None:
    """A late refusal that names fewer tokens than the current estimate teaches nothing."""
    estimator = ByteClassEstimator(EstimatorSettings())
    early = estimator.estimate(facts(WORDS * 10), "")
    teach(estimator, 300, ratio=3.0)
    before = estimator.state()
    estimator.observe_overflow(early, Overflow(at_least_prompt_tokens=round(len(WORDS) * 10 / 3.5)))
    assert before == estimator.state()


def test_refusal_for_length_raises_an_estimate() -> None:
    """A refusal that names "at least N tokens" teaches if N is above the estimate, and nothing if below."""
    estimator = ByteClassEstimator(EstimatorSettings())
    teach(estimator, 100)
    before = estimator.estimate(facts(WORDS * 10), "")
    estimator.observe_overflow(before, Overflow(at_least_prompt_tokens=10))
    estimator.observe_overflow(before, Overflow())
    unmoved = estimator.estimate(facts(WORDS * 10), "").prompt_tokens
    estimator.observe_overflow(before, Overflow(at_least_prompt_tokens=round(before.prompt_tokens * 1.1)))
    assert unmoved == before.prompt_tokens
    assert estimator.estimate(facts(WORDS * 10), "").prompt_tokens > unmoved


def test_residuals_wait_until_the_prices_are_taught() -> None:
    """During the first hundred responses only the prices learn; after that the rest goes to the category."""
    estimator = ByteClassEstimator(EstimatorSettings())
    teach(estimator, 100, ratio=5.0)
    assert {0.0} == {row.residual for row in estimator.state().categories}
    assert 0.0 == estimator.state().models[0].residual
    teach(estimator, 1, ratio=5.0, seed=1)
    assert 0.0 not in {row.residual for row in estimator.state().categories}
    assert 0.0 != estimator.state().models[0].residual


def test_the_grain_of_counting_widens_the_bound_of_short_prompts() -> None:
    """However well the prices are known, a few tokens more or less are a larger part of a short prompt."""
    estimator = ByteClassEstimator(EstimatorSettings())
    teach(estimator, 1_000)
    estimates = [estimator.estimate(facts(text), "") for text in (b"hello there", WORDS, WORDS * 20)]
    widths = [log(estimate.prompt_bound / estimate.prompt_tokens) for estimate in estimates]
    assert sorted(widths, reverse=True) == widths
    assert widths[-1] < estimator.state().models[0].q * 0.06


def test_an_endless_tenant_name_is_truncated_consistently() -> None:
    """Keys come from clients: a tenant name of a megabyte is truncated, and finds what was learned under it."""
    estimator = ByteClassEstimator(EstimatorSettings(young_observations=1))
    asked = facts(WORDS * 9)
    for _ in range(150):
        estimator.observe(estimator.estimate(asked, "t" * 1_000_000), Usage(300))
    state = estimator.state()
    (model,), (category, _) = state.models, state.categories
    assert len(category.category.key) <= MAX_NAME_CHARS
    assert Source.LEARNED == estimator.estimate(asked, "t" * 1_000_000).source
    assert list(model.sums_b) != [0.0] * len(model.sums_b)
    assert (estimator.prices(asked.model) != estimator.prices("another")).any()


def test_images_are_priced_and_their_price_is_learned() -> None:
    """An image starts at its configured price, which moves to its actual cost."""
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


def test_images_of_each_size_have_their_own_price() -> None:
    """Mixed traffic with small and large images teaches both prices for a model that charges by pixels."""
    estimator = ByteClassEstimator(EstimatorSettings())
    small = facts(WORDS * 4, media=MediaCount(small_images=1))
    large = facts(WORDS * 4, media=MediaCount(large_images=1))
    for _ in range(60):
        for asked, tokens in ((facts(WORDS * 4), 100), (small, 166), (large, 2_745)):
            estimator.observe(estimator.estimate(asked, ""), Usage(tokens))
    both = facts(WORDS * 4, media=MediaCount(small_images=2, large_images=2))
    estimates = [estimator.estimate(asked, "").prompt_tokens for asked in (small, large, both)]
    assert estimates == [pytest.approx(tokens, rel=0.05) for tokens in (166, 2_745, 100 + 2 * 66 + 2 * 2_645)]


def test_images_that_exceed_their_bound_widen_no_bound_of_text() -> None:
    """Requests with media have a q of their own: they err differently, and each kind keeps its promise."""
    estimator, with_image = (
        ByteClassEstimator(EstimatorSettings()),
        facts(WORDS * 4, media=MediaCount(large_images=1)),
    )
    teach(estimator, 150)
    (before,) = estimator.state().models
    for _ in range(4):
        estimate = estimator.estimate(with_image, "")
        estimator.observe(estimate, Usage(ceil(1.05 * estimate.prompt_bound)))
    (after,) = estimator.state().models
    assert after.q == before.q
    assert estimator._known.model(after.model).media_bound.q > START


def test_a_tenant_has_its_own_residual() -> None:
    """A tenant whose text costs more than its bytes suggest is estimated higher than others."""
    estimator = ByteClassEstimator(EstimatorSettings())
    for _ in range(400):
        estimator.observe(estimator.estimate(facts(WORDS * 9), "dear"), Usage(260))
        estimator.observe(estimator.estimate(facts(WORDS * 9), "cheap"), Usage(220))
    tokens = [estimator.estimate(facts(WORDS * 9), tenant).prompt_tokens for tenant in ("dear", "cheap")]
    assert tokens == [pytest.approx(260, rel=0.03), pytest.approx(220, rel=0.03)]


def test_state_round_trips_exactly() -> None:
    """An estimator that loads another's state has the same state, and continues as the other does."""
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
    assert estimates[0].prompt_bound == pytest.approx(estimates[1].prompt_bound, rel=1e-3)


@pytest.mark.parametrize(
    "broken",
    [{"q": float("nan")}, {"spread": float("inf")}, {"residual": float("-inf")}, {"sums_b": b""}],
)
def test_state_with_numbers_that_are_not_finite_is_rejected(broken: dict[str, object]) -> None:
    """A state with NaN or infinity in it changes nothing in the estimator that loads it."""
    one, other = ByteClassEstimator(EstimatorSettings()), ByteClassEstimator(EstimatorSettings())
    teach(one, 20)
    state = one.state()
    if "sums_b" in broken:
        broken = {"sums_b": packed([float("nan")]) + state.models[0].sums_b[DOUBLE_BYTES:]}
    with pytest.raises(ConfigurationError, match="finite"):
        other.load(replace(state, models=(replace(state.models[0], **broken),)))  # type: ignore[arg-type]
    assert ByteClassEstimator(EstimatorSettings()).state() == other.state()


def test_state_of_another_kind_is_rejected() -> None:
    """State of the EMA, or over other features, is not loaded."""
    estimator = make_estimator(EstimatorSettings())
    ema = make_estimator(EstimatorSettings(kind="ema"))
    with pytest.raises(ConfigurationError, match="'ema'"):
        estimator.load(ema.state())
    says = f"learned state has 1 features, from another version; this router has {len(FEATURE_NAMES)}"
    with pytest.raises(ConfigurationError, match=f"^{says}$"):
        estimator.load(replace(estimator.state(), features=("x",)))


def test_client_names_cost_nothing_until_a_response_comes() -> None:
    """Estimates for any number of unknown models leave no state; responses are capped by max_models."""
    estimator = ByteClassEstimator(EstimatorSettings(max_models=3, max_categories=5))
    for number in range(20):
        estimator.estimate(facts(WORDS, model=f"made up {number}"), "")
    assert estimator.state().models == ()
    for number in range(20):
        request = facts(WORDS, model=f"real {number}")
        estimator.observe(estimator.estimate(request, f"tenant {number}"), Usage(25))
    assert [row.model for row in estimator.state().models] == ["real 1", "real 2", "*"]
    assert len(estimator.state().categories) == 5 + 1


@pytest.mark.parametrize("which", ["sums_a", "sums_b"])
@pytest.mark.parametrize("more", [-1, 1])
def test_state_of_another_size_is_rejected(which: str, more: int) -> None:
    """Sums over more or fewer features than there are change nothing."""
    one, other = ByteClassEstimator(EstimatorSettings()), ByteClassEstimator(EstimatorSettings())
    teach(one, 2)
    state = one.state()
    (model,) = state.models
    sums = {"sums_a": model.sums_a, "sums_b": model.sums_b}
    sums[which] = sums[which] + packed([1.0]) if more > 0 else sums[which][:-DOUBLE_BYTES]
    with pytest.raises(
        ConfigurationError, match=f"learned sums of model 'm' are not over {len(FEATURE_NAMES)} features"
    ):
        other.load(replace(state, models=(replace(model, sums_a=sums["sums_a"], sums_b=sums["sums_b"]),)))
    assert ByteClassEstimator(EstimatorSettings()).state() == other.state()


@pytest.mark.parametrize("which", ["scale_a", "scale_b"])
@pytest.mark.parametrize("more", [-1, 1])
def test_state_of_another_scale_is_rejected(which: str, more: int) -> None:
    """A scale over more or fewer factors than there are changes nothing."""
    one, other = ByteClassEstimator(EstimatorSettings()), ByteClassEstimator(EstimatorSettings())
    teach(one, 2)
    state = one.state()
    (model,) = state.models
    sums = getattr(model, which)
    changes: dict[str, Any] = {which: sums + packed([1.0]) if more > 0 else sums[:-DOUBLE_BYTES]}
    changed = replace(model, **changes)
    with pytest.raises(
        ConfigurationError, match=f"learned scale of model 'm' is not over {SCALE_FACTORS} factors"
    ):
        other.load(replace(state, models=(changed,)))
    assert ByteClassEstimator(EstimatorSettings()).state() == other.state()
