from math import inf, nan
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.ema import EmaEstimator
from extproc.core.estimator.kinds import tenant_key
from extproc.core.estimator.length_counts import BINS
from extproc.core.estimator.packing import packed
from extproc.core.estimator.protocol import (
    CategoryKey,
    CategoryState,
    LearnedState,
    Learning,
    OutputState,
    Refused,
    Source,
)
from extproc.core.estimator.settings import EmaSettings, EstimatorSettings, MediaTokens
from extproc.core.facts import Api, MediaCount, RequestFacts
from extproc.core.names import MAX_NAME_CHARS
from extproc.core.usage import Usage
from tests.unit.sharing_fleet import Fleet


def facts(text: bytes = b"x" * 400, **fields: object) -> RequestFacts:
    """Return the facts of a chat request."""
    return replace(RequestFacts(Api.CHAT, "m", text), **fields)


def test_the_first_estimate_uses_the_papers_ratio() -> None:
    """Before any response a token is four bytes, and the estimate is marked as a prior."""
    estimate = EmaEstimator(EstimatorSettings(kind="ema")).estimate(facts(), "")
    assert (100.0, 100.0, Source.PRIOR) == (estimate.prompt_tokens, estimate.prompt_bound, estimate.source)


def test_the_mean_and_its_deviation_follow_the_paper() -> None:
    """The first response sets the ratio, the second its deviation; then both decay by beta = .95, sigma first."""
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
def test_usage_that_no_tokenizer_makes_is_rejected(tokens: int, refused: str | None) -> None:
    """Fewer than one or more than sixteen bytes per token are impossible and are not learned."""
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
    """Images, audio and video are added per item, and subtracted from what is learned about the text."""
    estimator = EmaEstimator(EstimatorSettings(kind="ema"))
    estimate = estimator.estimate(facts(media=MediaCount(medium_images=2, unknown_images=1, audio=1)), "")
    assert 100 + 2 * 1_024 + 2_048 + 2_048 == estimate.prompt_tokens
    estimator.observe(estimate, Usage(100 + 2 * 1_024 + 2_048 + 2_048))
    assert 4.0 == estimator.state().categories[0].bytes_per_token


@pytest.mark.parametrize(
    ("media", "tokens"),
    [
        (MediaCount(small_images=2), 2 * 256),
        (MediaCount(medium_images=2), 2 * 1_024),
        (MediaCount(large_images=2), 2 * 1_536),
        (MediaCount(unknown_images=2), 2 * 2_048),
        (MediaCount(audio=2), 2 * 1_000),
        (MediaCount(video=2), 2 * 4_000),
    ],
)
def test_each_kind_of_media_has_its_price(media: MediaCount, tokens: int) -> None:
    """The price of each item is added to the likeliest count and to the bound, once per item."""
    prices = MediaTokens(
        image_small=256, image_medium=1_024, image_large=1_536, image_unknown=2_048, audio=1_000, video=4_000
    )
    estimate = EmaEstimator(EstimatorSettings(kind="ema", media_tokens=prices)).estimate(facts(media=media), "")
    assert (100 + tokens, 100 + tokens) == (estimate.prompt_tokens, estimate.prompt_bound)


def test_text_that_a_template_may_drop_is_counted() -> None:
    """The paper does not cover templates: earlier reasoning counts as ordinary text."""
    estimate = EmaEstimator(EstimatorSettings(kind="ema")).estimate(facts(dropped_text=b"x" * 40), "")
    assert (110.0, 110.0) == (estimate.prompt_tokens, estimate.prompt_bound)


@pytest.mark.parametrize("ids", [None, 7])
@pytest.mark.parametrize("limit", [None, 0, 50])
def test_an_estimate_says_whether_its_output_was_declared(ids: int | None, limit: int | None) -> None:
    """A limit of any size counts as declared, even if the prompt is token ids."""
    estimator = EmaEstimator(EstimatorSettings(kind="ema", default_output_tokens=300))
    estimate = estimator.estimate(facts(exact_prompt_tokens=ids, max_output_tokens=limit), "")
    assert (limit is not None, 300 if limit is None else limit) == (
        estimate.output_declared,
        estimate.output_tokens,
    )


@pytest.mark.parametrize(
    ("tokens", "ratio", "under_counted"), [(50, 2.0, False), (100, 1.0, False), (101, 100 / 101, True)]
)
def test_a_response_reveals_the_error_of_its_estimate(tokens: int, ratio: float, *, under_counted: bool) -> None:
    """The error is the estimate over the truth; a bound that equals the truth was no miss."""
    estimator = EmaEstimator(EstimatorSettings(kind="ema"))
    learning = estimator.observe(estimator.estimate(facts(), ""), Usage(tokens))
    expected = Learning(ratio, under_counted=under_counted, bytes_per_token=400 / tokens)
    assert expected == learning


@pytest.mark.parametrize(
    ("evidence", "fields", "tokens", "learning"),
    [
        (None, {}, 101, Learning(0.0, under_counted=False, bytes_per_token=0.0, refused=Refused.IMPLAUSIBLE)),
        ("x", {}, 101, Learning(0.0, under_counted=False, bytes_per_token=0.0, refused=Refused.IMPLAUSIBLE)),
        ("own", {}, 0, Learning(0.0, under_counted=False, bytes_per_token=0.0, refused=Refused.IMPLAUSIBLE)),
        (
            "own",
            {"unseen_history": True},
            200,
            Learning(0.5, under_counted=True, bytes_per_token=0.0, refused=Refused.UNSEEN_HISTORY),
        ),
        ("own", {"text": b""}, 5, Learning(0.0, under_counted=True, bytes_per_token=0.0, refused=Refused.NO_TEXT)),
    ],
)
def test_rejected_usage_has_no_bytes_per_token(
    evidence: str | None, fields: dict[str, Any], tokens: int, learning: Learning
) -> None:
    """Without text or plausible usage there are no bytes per token; implausible usage is no miss."""
    estimator = EmaEstimator(EstimatorSettings(kind="ema"))
    estimate = estimator.estimate(facts(**fields), "")
    estimate = estimate if evidence == "own" else replace(estimate, evidence=evidence)
    assert learning == estimator.observe(estimate, Usage(tokens))


def test_the_number_of_categories_is_capped() -> None:
    """When there are more categories than allowed, the least recently used is dropped, however long its key."""
    estimator = EmaEstimator(EstimatorSettings(kind="ema", max_categories=2))
    for tenant in ("a", "b" * 1_000_000, "a", "c"):
        estimator.observe(estimator.estimate(facts(), tenant), Usage(100))
    keys = [row.category.key for row in estimator.state().categories]
    assert ["a", "c"] == keys


def test_a_category_s_key_is_no_longer_than_a_name_may_be() -> None:
    """Tenants come from clients: a name of a megabyte is stored as a digest."""
    estimator = EmaEstimator(EstimatorSettings(kind="ema"))
    keys = {estimator.estimate(facts(), "t" * 1_000_000 + end).category.key for end in "ab"}
    assert [MAX_NAME_CHARS] * 2 == [len(key) for key in keys]


def test_state_can_be_loaded_by_another_estimator() -> None:
    """An estimator continues from what another learned; a state of another kind is rejected."""
    one, other = EmaEstimator(EstimatorSettings(kind="ema")), EmaEstimator(EstimatorSettings(kind="ema"))
    one.observe(one.estimate(facts(), ""), Usage(200))
    other.load(one.state())
    assert one.state() == other.state()
    with pytest.raises(ConfigurationError, match="of kind 'other'"):
        other.load(LearnedState("other"))


@given(
    ratios=st.lists(st.floats(1, 16), min_size=2, max_size=20),
    gamma=st.floats(0, 10),
    nonsense=st.lists(st.integers(1, 10_000_000), max_size=3),
    tenant=st.text(max_size=9),
)
@example([1.0, 1.0], 0.0, [], "none")  # also the name of a kind of text
def test_estimates_stay_physical_whatever_was_learned(
    ratios: list[float], gamma: float, nonsense: list[int], tenant: str
) -> None:
    """For any usage of real text, with nonsense in between: bytes / 16 <= estimate <= bound <= bytes."""
    text = b"some words of text, " * 100
    settings = EstimatorSettings(kind="ema", ema=EmaSettings(margin_deviations=gamma))
    estimator = EmaEstimator(settings)
    usages = [round(len(text) / ratio) for ratio in ratios]
    for tokens in [*usages, *nonsense, *usages]:
        estimator.observe(estimator.estimate(facts(text), tenant), Usage(tokens))
    (row,) = estimator.state().categories
    assert row.observations >= 2 * len(usages)
    assert (row.deviation > 1e-9) == (len({*usages, *plausible(nonsense, len(text))}) > 1)
    estimate = estimator.estimate(facts(text), tenant)
    assert len(text) / 16 <= estimate.prompt_tokens <= estimate.prompt_bound <= len(text)
    assert estimate.category == CategoryKey("m", tenant_key(tenant) if tenant else estimate.category.key)


def plausible(usages: list[int], text_bytes: int) -> list[int]:
    """Return the usages that are plausible for a text of this many bytes."""
    return [tokens for tokens in usages if text_bytes / 16 <= tokens <= text_bytes]


@pytest.mark.parametrize(("gamma", "ratio"), [(0.0, 8.5), (0.1, 7.0), (0.5, 1.0), (1.0, 1.0), (100.0, 1.0)])
def test_the_conservative_ratio_is_never_less_than_a_byte_for_each_token(gamma: float, ratio: float) -> None:
    """However many deviations are subtracted, even more than the mean, a token is at least one byte."""
    settings = EstimatorSettings(kind="ema", ema=EmaSettings(margin_deviations=gamma, decay=0.5))
    estimator = EmaEstimator(settings)
    for tokens in (1_600, 100):  # 1 and 16 bytes per token: the mean is 8.5, the deviation 15
        estimator.observe(estimator.estimate(facts(b"x" * 1_600), ""), Usage(tokens))
    (row,) = estimator.state().categories
    assert (8.5, 15.0) == (row.bytes_per_token, row.deviation)
    assert 1_600 / ratio == pytest.approx(estimator.estimate(facts(b"x" * 1_600), "").prompt_bound)


@pytest.mark.parametrize(
    ("ratio", "deviation"),
    [
        (4.0, inf),
        (4.0, nan),
        (4.0, -0.1),
        (nan, 1.0),
        (inf, 1.0),
        (0.9, 1.0),
        (16.1, 1.0),
        (0.0, 1.0),
        (-4.0, 1.0),
    ],
)
def test_a_ratio_that_no_text_has_is_not_loaded(ratio: float, deviation: float) -> None:
    """If one category of a state is impossible, nothing is loaded, not even the categories before it."""
    estimator = EmaEstimator(EstimatorSettings(kind="ema"))
    good = CategoryState(CategoryKey("m", "good"), 4.0, 1.0, 5)
    broken = CategoryState(CategoryKey("m", "bad"), ratio, deviation, 5)
    outputs = (OutputState(CategoryKey("m", ""), packed([1.0] * BINS), packed([0.0] * BINS)),)
    with pytest.raises(ConfigurationError, match="'bad'"):
        estimator.load(LearnedState("ema", (good, broken), outputs=outputs))
    assert LearnedState("ema") == estimator.state()


@pytest.mark.parametrize(("ratio", "deviation"), [(1.0, 0.0), (16.0, 20.0)])
def test_a_ratio_at_the_limits_is_loaded(ratio: float, deviation: float) -> None:
    """Ratios of one and sixteen bytes per token are possible."""
    estimator = EmaEstimator(EstimatorSettings(kind="ema"))
    state = LearnedState("ema", (CategoryState(CategoryKey("m", "k"), ratio, deviation, 5),))
    estimator.load(state)
    assert state == estimator.state()


@pytest.mark.parametrize(
    ("text", "prompt_tokens", "refused"),
    [
        (b"x" * 400, 2_048, "no_text"),  # the image alone
        (b"x" * 400, 2_000, "no_text"),
        (b"x" * 400, 2_049, "implausible"),  # 400 bytes in one token
        (b"x" * 400, 2_148, None),
        (b"", 2_148, "no_text"),
    ],
)
def test_usage_that_leaves_no_tokens_for_the_text_is_not_learned(
    text: bytes, prompt_tokens: int, refused: str | None
) -> None:
    """If the media cost the whole prompt, or there is no text, nothing is learned about the text's ratio."""
    estimator = EmaEstimator(EstimatorSettings(kind="ema"))
    estimate = estimator.estimate(facts(text, media=MediaCount(unknown_images=1)), "")
    assert refused == estimator.observe(estimate, Usage(prompt_tokens)).refused
    assert (refused is None) == bool(estimator.state().categories)


@pytest.mark.parametrize(
    ("young_observations", "sources"),
    [(2, [Source.PRIOR, Source.YOUNG, Source.LEARNED]), (0, [Source.PRIOR, Source.LEARNED, Source.LEARNED])],
)
def test_a_category_is_young_until_it_has_its_responses(young_observations: int, sources: list[Source]) -> None:
    """A category is first a prior, then young, then learned."""
    estimator = EmaEstimator(EstimatorSettings(kind="ema", young_observations=young_observations))
    seen = []
    for _ in range(3):
        estimate = estimator.estimate(facts(), "")
        seen.append(estimate.source)
        estimator.observe(estimate, Usage(100))
    assert sources == seen


def test_prompts_that_the_server_truncates_teach_no_ratio() -> None:
    """Sixty long texts of which the server counted 256 tokens leave no ratio."""
    estimator = EmaEstimator(EstimatorSettings(kind="ema"))
    cut = RequestFacts(Api.EMBEDDINGS, "m", b"some words " * 270, max_output_tokens=0, truncate_prompt_tokens=256)
    for _ in range(60):
        assert "truncated" == estimator.observe(estimator.estimate(cut, ""), Usage(256)).refused
    assert () == estimator.state().categories


def test_there_is_nothing_to_undo() -> None:
    """The EMA never replaces a model's ratios, so there are none to restore."""
    assert not EmaEstimator(EstimatorSettings(kind="ema")).undo("m")


def test_replicas_of_the_same_category_share_its_ratio() -> None:
    """What others learned is added to what a replica has learned itself."""
    fleet = Fleet(2, "ema")
    for estimator, tokens in zip(fleet.estimators, (400, 200), strict=True):
        for _ in range(20):
            estimator.observe(estimator.estimate(facts(b"a" * 800), ""), Usage(tokens))
    fleet.exchange()
    fleet.exchange()
    one, other = (estimator.estimate(facts(b"a" * 800), "").prompt_tokens for estimator in fleet.estimators)
    assert one == pytest.approx(other, rel=0.1)
    assert 230 < min(one, other) < max(one, other) < 330
    assert [40, 40] == [estimator.state().categories[0].observations for estimator in fleet.estimators]
