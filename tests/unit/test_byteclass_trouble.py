"""The byte-class estimator when things go wrong: broken counters, late responses, other tokenizers."""

from dataclasses import replace

import numpy as np
import pytest

from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.protocol import Estimate, Learning, Source
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.usage import Usage
from tests.unit.byteclass_lessons import WORDS, facts, teach


def test_broken_usage_moves_next_to_nothing() -> None:
    """One response in fifty that is off by ten times leaves the estimate within one percent, and is counted.

    Counts that are ten times too high are clipped; those ten times too low are fewer than any tokenizer makes, and
    are rejected.
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
    """A model name whose tokenizer changes is relearned within a few dozen responses."""
    estimator = ByteClassEstimator(EstimatorSettings())
    teach(estimator, 500, ratio=4.0)
    teach(estimator, 60, ratio=1.6, seed=1)
    estimate = estimator.estimate(facts(WORDS * 20), "")
    assert estimate.prompt_tokens == pytest.approx(len(WORDS) * 20 / 1.6, rel=0.1)


def test_one_percent_of_broken_usage_hardly_adds_to_the_error() -> None:
    """With usage ten times too high or too low in 1 % of responses the error grows by less than a tenth."""

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
    """After thousands of equal responses and then others, prices are finite, and no update was refused."""
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


def test_a_model_that_was_reset_is_young_again() -> None:
    """After a change of tokenizer, sources, priority in learning and the bound are those of a new model."""
    estimator = ByteClassEstimator(EstimatorSettings())
    teach(estimator, 500, ratio=4.0)
    sources = [teach(estimator, 1, ratio=1.6, seed=seed).source for seed in range(20)]
    assert (Source.LEARNED, Source.YOUNG) == (sources[0], sources[-1])
    (model,) = estimator.state().models
    assert model.observations < 20
    assert model.q <= 4.0


def test_a_second_change_is_followed_too() -> None:
    """If a tokenizer changes and changes back, prices are relearned each time."""
    estimator = ByteClassEstimator(EstimatorSettings())
    for seed, ratio in enumerate((4.0, 1.6, 4.0)):
        teach(estimator, 150, ratio=ratio, seed=seed)
    estimate = estimator.estimate(facts(WORDS * 20), "")
    assert estimate.prompt_tokens == pytest.approx(len(WORDS) * 20 / 4.0, rel=0.1)


@pytest.mark.parametrize("in_flight", [1, 300])
def test_late_responses_do_not_teach_the_same_error_repeatedly(in_flight: int) -> None:
    """With any number of requests in flight, a jump of all counts by a third leaves the bound narrow.

    All of them were estimated before the first response arrived; only the first few add information.
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
    """If the bound is as high as it can be, a miss says nothing about the multiple: text of 1 byte per token."""
    estimator = ByteClassEstimator(EstimatorSettings())
    teach(estimator, 300)
    before = estimator.state().models[0].q
    for _ in range(300):
        estimator.observe(estimator.estimate(facts(WORDS * 4), ""), Usage(len(WORDS) * 4 * 10))
    teach(estimator, 300)
    assert estimator.state().models[0].q < before + 6


@pytest.mark.parametrize("too_small", [1, 10, 25])
def test_fewer_tokens_than_any_tokenizer_makes_teach_nothing(too_small: int) -> None:
    """A counter that reports next to nothing, for however long, leaves the prices as they are."""
    estimator = ByteClassEstimator(EstimatorSettings())
    teach(estimator, 200)
    before = estimator.estimate(facts(WORDS * 20), "").prompt_tokens
    for _ in range(300):
        learning = estimator.observe(estimator.estimate(facts(WORDS * 20), ""), Usage(too_small))
        assert "implausible" == learning.refused
    assert before == estimator.estimate(facts(WORDS * 20), "").prompt_tokens


def test_a_hidden_system_prompt_is_learned() -> None:
    """A server that puts 3,000 tokens before every chat is followed, far beyond what the bytes allow."""
    estimator = ByteClassEstimator(EstimatorSettings())
    for position in range(150):
        text = WORDS * (1 + position % 5)
        estimator.observe(estimator.estimate(facts(text), ""), Usage(3_000 + len(text) // 4))
    assert estimator.estimate(facts(WORDS * 2), "").prompt_tokens == pytest.approx(3_050, rel=0.1)


@pytest.mark.parametrize("tokens", [0, -5, 10**8])
def test_impossible_usage_is_refused(tokens: int) -> None:
    """Counts that no model can have are reported as implausible and teach nothing."""
    estimator = ByteClassEstimator(EstimatorSettings())
    learning = estimator.observe(estimator.estimate(facts(WORDS), ""), Usage(tokens))
    assert learning.refused == "implausible"
    assert estimator.state().models == ()


@pytest.mark.parametrize(
    ("others", "refused"),
    [({"truncate_prompt_tokens": 10}, "truncated"), ({"unseen_history": True}, "unseen_history")],
)
def test_usage_that_does_not_belong_to_the_text_teaches_nothing(others: dict[str, object], refused: str) -> None:
    """A prompt that the server truncates, or adds turns to, says nothing about the price of its text."""
    estimator = ByteClassEstimator(EstimatorSettings())
    learning = estimator.observe(estimator.estimate(facts(WORDS, **others), ""), Usage(10))
    assert learning.refused == refused
    assert estimator.state().models == ()


def test_implausible_usage_does_not_move_the_bound() -> None:
    """A counter that is off by ten times says nothing about how far real errors reach."""
    estimator = ByteClassEstimator(EstimatorSettings())
    teach(estimator, 200)
    before = estimator.state().models[0]
    estimate = estimator.estimate(facts(WORDS * 20), "")
    assert estimate.prompt_bound < 2 * estimate.prompt_tokens  # and so far below the physical limit
    learning = estimator.observe(estimate, Usage(round(10 * estimate.prompt_tokens)))
    (after,) = estimator.state().models
    assert (True, True) == (learning.clipped, learning.under_counted)
    assert (before.q, before.clipped + 1) == (after.q, after.clipped)


def test_plausible_usage_above_the_bound_moves_it() -> None:
    """A real prompt above its bound raises q by half a scale; one below lowers it slightly."""
    estimator = ByteClassEstimator(EstimatorSettings())
    teach(estimator, 200)
    before = estimator.state().models[0].q
    estimate = estimator.estimate(facts(WORDS * 20), "")
    estimator.observe(estimate, Usage(round(2 * estimate.prompt_bound)))
    assert before + 0.5 * 0.99 == pytest.approx(estimator.state().models[0].q)
    estimator.observe(estimate, Usage(round(estimate.prompt_tokens)))
    assert before + 0.5 * 0.98 == pytest.approx(estimator.state().models[0].q)


def test_a_miss_of_a_bound_at_its_physical_limit_does_not_move_it() -> None:
    """If no multiple would have helped, a prompt above its bound is no reason for a larger one."""
    taught, estimator = ByteClassEstimator(EstimatorSettings()), ByteClassEstimator(EstimatorSettings())
    teach(taught, 200, ratio=3.0)
    state = taught.state()
    estimator.load(replace(state, models=(replace(state.models[0], q=1_000.0),)))
    estimate = estimator.estimate(facts(WORDS * 20), "")
    assert len(WORDS) * 20 + 256 < estimate.prompt_bound < 4 * estimate.prompt_tokens
    assert estimator.observe(estimate, Usage(int(estimate.prompt_bound) + 1)).under_counted
    assert 1_000.0 == estimator.state().models[0].q
    estimator.observe(estimate, Usage(round(estimate.prompt_tokens)))
    assert 1_000.0 - 0.5 * 0.01 == estimator.state().models[0].q


def test_the_price_of_padding_is_learned() -> None:
    """Runs of spaces at 64 bytes per token are plausible usage, and their price is learned."""
    estimator = ByteClassEstimator(EstimatorSettings())
    for count in range(150):
        text = (b"name" + b" " * (200 + 8 * count)) * 10
        learning = estimator.observe(estimator.estimate(facts(text), ""), Usage(20 + len(text) // 64))
        assert learning.refused is None
    text = (b"name" + b" " * 640) * 20
    expected = 40 + len(text) / 64
    assert expected == pytest.approx(estimator.estimate(facts(text), "").prompt_tokens, rel=0.2)


def test_reasoning_that_the_template_drops_gets_no_price() -> None:
    """If earlier reasoning is left out of the prompt, its price goes to zero, and text keeps its own."""
    estimator = ByteClassEstimator(EstimatorSettings())
    for count in range(200):
        asked = facts(WORDS * (1 + count % 7), dropped_text=WORDS * (count % 30))
        estimator.observe(estimator.estimate(asked, ""), Usage(max(1, len(asked.text) // 4)))
    asked = facts(WORDS * 5, dropped_text=WORDS * 40)
    assert len(asked.text) / 4 == pytest.approx(estimator.estimate(asked, "").prompt_tokens, rel=0.1)


@pytest.mark.parametrize("tenants_named", [True, False])
def test_odd_prompts_of_one_client_erase_nothing(tenants_named: bool) -> None:  # noqa: FBT001
    """However many implausible responses one client causes in a row, what the others taught stays."""
    estimator = ByteClassEstimator(EstimatorSettings())
    rng = np.random.default_rng(5)

    def learned_from(client: str, ratio: float) -> Learning:
        size = int(rng.integers(400, 4_000))
        text = f"You are the helper of {client}.".encode().ljust(128) + (WORDS * 42)[:size]
        estimate = estimator.estimate(facts(text), client if tenants_named else "")
        return estimator.observe(estimate, Usage(round(len(text) / ratio)))

    for turn in range(300):
        learned_from(f"client {turn % 4}", 4.0)
    assert not any(learned_from("odd", 1.2).started_anew for _ in range(150))
    assert 0 == estimator.state().models[0].generation


def test_a_reset_is_reported_once() -> None:
    """When responses of most sources are implausible, exactly one of them reports that the model was reset."""
    estimator = ByteClassEstimator(EstimatorSettings())
    teach(estimator, 300, ratio=4.0)
    resets = []
    for seed in range(40):
        text = (WORDS * 42)[seed : seed + 1_000]
        resets.append(estimator.observe(estimator.estimate(facts(text), ""), Usage(len(text) // 2)).started_anew)
    assert 1 == sum(resets)
