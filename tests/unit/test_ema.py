import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.ema import EmaEstimator
from extproc.core.estimator.protocol import CategoryKey, LearnedState, Source
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.facts import Api, MediaCount, RequestFacts
from extproc.core.usage import Usage


def facts(text: bytes = b"x" * 400, **fields: object) -> RequestFacts:
    """Return the facts of a chat request."""
    return RequestFacts(Api.CHAT, "m", text, **fields)  # type: ignore[arg-type]


def test_the_first_estimate_uses_the_papers_ratio() -> None:
    """Before any response a token is four bytes, and the estimate says that it is a prior."""
    estimate = EmaEstimator(EstimatorSettings(kind="ema")).estimate(facts(), "")
    assert (100.0, 100.0, Source.PRIOR) == (estimate.prompt_tokens, estimate.prompt_bound, estimate.source)


def test_the_mean_and_its_deviation_follow_the_paper() -> None:
    """First the ratio, then its deviation are set; from then on both decay by beta = .95, sigma before c."""
    estimator = EmaEstimator(EstimatorSettings(kind="ema"))
    for tokens in (100, 80, 50):
        estimator.observe(estimator.estimate(facts(), ""), Usage(tokens))
    (state,) = estimator.state().categories
    mean = 0.95 * 4.0 + 0.05 * 5.0
    deviation = 0.95 * 1.0 + 0.05 * (8.0 - mean)
    assert (0.95 * mean + 0.05 * 8.0, deviation, 3) == pytest.approx(
        (state.bytes_per_token, state.deviation, state.observations)
    )
    estimate = estimator.estimate(facts(), "")
    assert 400 / (state.bytes_per_token - state.deviation) == pytest.approx(estimate.prompt_bound)


@pytest.mark.parametrize(("tokens", "refused"), [(5_000_000, "implausible"), (1, "implausible"), (100, None)])
def test_usage_that_no_tokenizer_makes_is_refused(tokens: int, refused: str | None) -> None:
    """Less than one or more than sixteen bytes per token is nonsense and is not learned."""
    estimator = EmaEstimator(EstimatorSettings(kind="ema"))
    learning = estimator.observe(estimator.estimate(facts(), ""), Usage(tokens))
    assert (refused, refused is None) == (learning.refused, bool(estimator.state().categories))


def test_token_ids_are_exact_and_teach_nothing() -> None:
    """A prompt of token ids needs no estimate."""
    estimator = EmaEstimator(EstimatorSettings(kind="ema"))
    estimate = estimator.estimate(facts(b"", exact_prompt_tokens=7), "")
    assert (7, 7, Source.EXACT) == (estimate.prompt_tokens, estimate.prompt_bound, estimate.source)
    assert "exact" == estimator.observe(estimate, Usage(7)).refused


def test_media_cost_what_is_configured() -> None:
    """Images, audio and video are counted per item, beside the text, and taken out of what is learned."""
    estimator = EmaEstimator(EstimatorSettings(kind="ema"))
    estimate = estimator.estimate(facts(media=MediaCount(medium_images=2, unknown_images=1, audio=1)), "")
    assert 100 + 2 * 1_024 + 2_048 + 2_048 == estimate.prompt_tokens
    estimator.observe(estimate, Usage(100 + 2 * 1_024 + 2_048 + 2_048))
    assert 4.0 == estimator.state().categories[0].bytes_per_token


def test_the_number_of_categories_is_capped() -> None:
    """Of more categories than allowed the least recently used is forgotten, however long its key."""
    estimator = EmaEstimator(EstimatorSettings(kind="ema", max_categories=2))
    for tenant in ("a", "b" * 1_000_000, "a", "c"):
        estimator.observe(estimator.estimate(facts(), tenant), Usage(100))
    keys = [row.category.key for row in estimator.state().categories]
    assert ["a", "c"] == keys


def test_state_goes_into_another_estimator() -> None:
    """What one estimator learned another continues from; a state of another kind is refused."""
    one, other = EmaEstimator(EstimatorSettings(kind="ema")), EmaEstimator(EstimatorSettings(kind="ema"))
    one.observe(one.estimate(facts(), ""), Usage(200))
    other.load(one.state())
    assert one.state() == other.state()
    with pytest.raises(ConfigurationError, match="of kind 'other'"):
        other.load(LearnedState("other"))


@given(
    text=st.binary(max_size=2_000),
    usages=st.lists(st.integers(1, 10_000_000), max_size=20),
    tenant=st.text(max_size=9),
)
def test_estimates_stay_physical_whatever_was_learned(text: bytes, usages: list[int], tenant: str) -> None:
    """For any bytes and any usages: bytes / 16 <= estimate <= bound <= bytes."""
    estimator = EmaEstimator(EstimatorSettings(kind="ema"))
    for tokens in usages:
        estimator.observe(estimator.estimate(facts(text), tenant), Usage(tokens))
    estimate = estimator.estimate(facts(text), tenant)
    assert len(text) / 16 <= estimate.prompt_tokens <= estimate.prompt_bound <= len(text)
    assert estimate.category == CategoryKey("m", tenant or estimate.category.key)


def test_prompts_that_the_server_cuts_teach_no_ratio() -> None:
    """Sixty long texts of which 256 tokens were counted leave no ratio behind."""
    estimator = EmaEstimator(EstimatorSettings(kind="ema"))
    cut = RequestFacts(Api.EMBEDDINGS, "m", b"some words " * 270, max_output_tokens=0, truncate_prompt_tokens=256)
    for _ in range(60):
        assert "truncated" == estimator.observe(estimator.estimate(cut, ""), Usage(256)).refused
    assert () == estimator.state().categories
