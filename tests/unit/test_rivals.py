"""Rival prices for a model: what replaces its prices, what does not, and what is restored."""

import numpy as np
import pytest

from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.evidence import Evidence
from extproc.core.estimator.prices import prior
from extproc.core.estimator.protocol import CategoryKey, Learning
from extproc.core.estimator.residual import Residual
from extproc.core.estimator.rivals import HELD, KEPT, TRIAL, Contest, Observed, Rival
from extproc.core.estimator.served_model import ServedModel
from extproc.core.estimator.settings import ByteClassSettings, EstimatorSettings
from extproc.core.usage import Usage
from tests.unit.byteclass_lessons import WORDS, facts

ODD = 1.2  # bytes per token of prompts whose features do not reveal it


class Traffic:
    """Requests of many clients to one model, and their cost."""

    def __init__(self) -> None:
        self.estimator = ByteClassEstimator(EstimatorSettings())
        self._rng = np.random.default_rng(7)
        self._count = 0

    def say(self, ratio: float) -> tuple[float, Learning]:
        """Send one client's request and response at this ratio; return the error and what was learned."""
        self._count += 1
        text = (
            f"client {self._count % 30}".encode().ljust(128) + (WORDS * 42)[: int(self._rng.integers(400, 4_000))]
        )
        tokens = max(1, round(len(text) / ratio * self._rng.normal(1, 0.02)))
        estimate = self.estimator.estimate(facts(text), "")
        return abs(estimate.prompt_tokens / tokens - 1), self.estimator.observe(estimate, Usage(tokens))

    def many(self, count: int, ratio: float) -> list[tuple[float, Learning]]:
        """Do this many times."""
        return [self.say(ratio) for _ in range(count)]

    @property
    def rival(self) -> Rival | None:
        """The candidate to replace the model's prices at present."""
        contest = self.estimator._known._contests.get("m")
        return None if contest is None else contest.rival

    @property
    def generation(self) -> int:
        """How often the model started from scratch."""
        return self.estimator.state().models[0].generation


def error(results: list[tuple[float, Learning]]) -> float:
    """Return the mean error."""
    return float(np.mean([each for each, _ in results]))


@pytest.mark.parametrize("ratio", [1.6, 3.2, 5.2, 8.0])
def test_another_tokenizer_is_followed_within_tens_of_responses(ratio: float) -> None:
    """Whether far from the former tokenizer or close to it, prices fit after a hundred
    responses, with one replacement at most.
    """
    traffic = Traffic()
    traffic.many(500, 4.0)
    learned = traffic.many(100, ratio)
    assert error(traffic.many(100, ratio)) < 0.05
    assert sum(learning.started_anew for _, learning in learned) <= 1
    assert not any(learning.returned for _, learning in learned)


def test_odd_prompts_in_a_row_erase_nothing() -> None:
    """Ten odd prompts in a row, each from another client, do not replace the prices."""
    traffic = Traffic()
    traffic.many(600, 4.0)
    before = traffic.generation
    learned = traffic.many(10, ODD) + traffic.many(50, 4.0)
    assert not any(learning.started_anew for _, learning in learned)
    assert before == traffic.generation
    assert error(learned[10:]) < 0.05


def test_replaced_prices_are_restored_completely() -> None:
    """After so many odd prompts that a model started from scratch,
    ordinary ones soon restore its former prices.
    """
    traffic = Traffic()
    traffic.many(600, 4.0)
    (before,) = traffic.estimator.state().models
    learned = traffic.many(60, ODD)
    assert 1 == sum(learning.started_anew for _, learning in learned)
    assert before.generation + 1 == traffic.generation
    learned = traffic.many(50, 4.0)
    assert 1 == sum(learning.returned for _, learning in learned)
    assert before.generation == traffic.generation
    assert error(traffic.many(50, 4.0)) < 0.03
    (after,) = traffic.estimator.state().models
    assert after.observations > before.observations
    assert {"latin"} <= {row.category.key for row in traffic.estimator.state().categories}


def test_a_third_tokenizer_is_followed_while_the_first_is_kept() -> None:
    """Replaced prices make way for a new rival if they do not predict better themselves."""
    traffic = Traffic()
    for ratio in (4.0, 2.4, 1.4):
        traffic.many(200, ratio)
    assert error(traffic.many(50, 1.4)) < 0.05
    assert 2 == traffic.generation


def test_rivals_are_compared_for_a_limited_time() -> None:
    """A rival that did not win, and replaced prices that were not restored, are
    compared for a limited number of responses.
    """
    traffic = Traffic()
    traffic.many(600, 4.0)
    traffic.many(9, ODD)
    assert traffic.rival is not None
    assert traffic.rival.learns
    traffic.many(TRIAL + 1, 4.0)
    assert traffic.rival is None
    traffic.many(60, 1.6)
    assert traffic.rival is not None
    assert not traffic.rival.learns
    traffic.many(KEPT + 1, 1.6)
    assert traffic.rival is None


def test_a_state_that_is_loaded_has_no_rival() -> None:
    """A rival of the former prices is dropped when a state is loaded from a file."""
    traffic, other = Traffic(), Traffic()
    traffic.many(600, 4.0)
    traffic.many(9, ODD)
    other.many(100, 4.0)
    traffic.estimator.load(other.estimator.state())
    assert traffic.rival is None
    assert not traffic.estimator.undo("m")


def changes(results: list[tuple[float, Learning]]) -> int:
    """Return how often prices were replaced or restored."""
    return sum(learning.started_anew or learning.returned for _, learning in results)


def test_usage_that_contradicts_itself_does_not_make_prices_flap() -> None:
    """A pool that reports random counts causes a few replacements, and then hardly any."""
    traffic, rng = Traffic(), np.random.default_rng(1)
    traffic.many(600, 4.0)
    learned = [traffic.say(float(ratio)) for ratio in np.exp(rng.uniform(np.log(1.5), np.log(12), 2_000))]
    assert changes(learned) <= 4


def test_prices_that_were_replaced_often_need_more_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    """After one change the required lead is 1.5; each further change doubles it, up to 12; old changes fade."""
    asked: list[float] = []
    monkeypatch.setattr(Rival, "compare", lambda *_: None)
    monkeypatch.setattr(Rival, "is_ahead_by", lambda _, enough: asked.append(enough) or False)  # type: ignore[func-returns-value]
    contest, first = Contest(), prior(EstimatorSettings().media_tokens)
    former = Rival(ServedModel(first, ByteClassSettings(), Residual()), {})
    observed = Observed(Evidence(None, 1.0, 4, None, 1, one_prompt=True), 1.0, 0.0, 1.0)
    for _ in range(7):
        contest.changed(former)
        contest.observe(CategoryKey("m", ""), observed)
    assert asked == pytest.approx([1.5, 3, 6, 12, 12, 12, 12], rel=0.01)
    for _ in range(8_000):
        contest.observe(CategoryKey("m", ""), observed)
    assert 1.5 == asked[-1]


@pytest.mark.parametrize(("factor", "observed"), [(3.9, 1), (4.1, 0)])
def test_a_count_far_beyond_a_rivals_own_estimate_is_ignored_by_its_bound(factor: float, observed: int) -> None:
    """A rival learns prices from every response, but a broken counter does
    not count as an observation for its bound.
    """
    first = prior(EstimatorSettings().media_tokens)
    rival = Rival(ServedModel(first, ByteClassSettings(), Residual()))
    estimate = ByteClassEstimator(EstimatorSettings()).estimate(facts(WORDS * 20), "")
    assert isinstance(estimate.evidence, Evidence)
    observation = Observed(estimate.evidence, factor * estimate.prompt_tokens, 0.0, 1.0)
    rival.compare(estimate.category, observation)
    assert (observed, 1) == (rival.model.bound.scored, rival.model.prices.responses)


def test_a_replacement_can_be_undone() -> None:
    """An operator can restore the replaced prices with their categories; undoing again reverses that."""
    traffic = Traffic()
    traffic.many(600, 4.0)
    before, kinds = traffic.generation, traffic.estimator.state().categories
    assert 1 == changes(traffic.many(60, 1.6))
    now = traffic.estimator.state()
    assert traffic.estimator.undo("m")
    assert before == traffic.generation
    assert {row.category for row in kinds} == {row.category for row in traffic.estimator.state().categories}
    assert error(traffic.many(20, 4.0)) < 0.1
    assert traffic.estimator.undo("m")
    assert now.models[0].sums_a == traffic.estimator.state().models[0].sums_a
    assert not traffic.estimator.undo("another")


def test_restored_prices_stay_for_a_while() -> None:
    """Restored prices continue to learn, and are not replaced for a thousand responses."""
    traffic = Traffic()
    traffic.many(600, 4.0)
    traffic.many(60, 1.6)
    assert traffic.estimator.undo("m")
    assert 0 == changes(traffic.many(HELD, 1.6))
    assert traffic.rival is None
    assert 1 == changes(traffic.many(200, 6.4))


def test_prices_can_be_restored_long_after_they_were_replaced() -> None:
    """Replaced prices can be restored after they are no longer compared, and while another rival is on trial."""
    traffic = Traffic()
    traffic.many(600, 4.0)
    traffic.many(60, 1.6)
    traffic.many(KEPT, 1.6)
    traffic.many(9, 8.0)
    assert traffic.rival is not None
    assert traffic.rival.learns
    assert traffic.estimator.undo("m")
    assert error(traffic.many(50, 4.0)) < 0.05


def test_prices_that_an_operator_restored_stay_for_a_thousand_responses() -> None:
    """Until then no response replaces the prices."""
    contest, observed = Contest(), Observed(Evidence(None, 1.0, 4, None, 1, one_prompt=True), 1.0, 0.0, 1.0)
    contest.hold(3)
    for _ in range(HELD - 1):
        assert contest.observe(CategoryKey("m", ""), observed) is None
    assert (1_000, True, False) == (HELD, contest.refuses(3), contest.refuses(2))
    assert contest.observe(CategoryKey("m", ""), observed) is None
    assert (False, False) == (contest.is_held, contest.refuses(3))


@pytest.mark.parametrize(("better_for", "ahead"), [(range(10), True), (range(6), True), (range(4), False)])
def test_a_rival_has_to_be_better_for_most_sources(better_for: range, ahead: bool) -> None:  # noqa: FBT001
    """However much better it predicts the responses of a few clients, it does not replace everybody's prices."""
    rival = Rival(ServedModel(prior(EstimatorSettings().media_tokens), ByteClassSettings(), Residual()))
    rival._score = 100.0
    for source in range(10):
        rival._sources.observe(source, held=source in better_for)
    assert ahead is rival.is_ahead_by(1.0)
