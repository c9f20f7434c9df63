"""The effects of learning from a single response."""

from copy import deepcopy
from math import exp, log
from typing import Any

import pytest

from extproc.core.estimator.belief import Belief
from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.clipping import clipped_error
from extproc.core.estimator.continued import Continued
from extproc.core.estimator.protocol import CategoryKey, Estimate, Learning, Refused
from extproc.core.estimator.residual import Residual
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.voices import Voice
from extproc.core.usage import Overflow, Usage
from tests.unit.byteclass_lessons import WORDS, facts, teach

PROMPT = facts(WORDS * 20)


def taught(count: int = 120) -> ByteClassEstimator:
    """Return an estimator that has learned a price of one token per four bytes of prose."""
    estimator = ByteClassEstimator(EstimatorSettings())
    teach(estimator, count)
    return estimator


def evidence_of(estimate: Estimate) -> Any:
    """Return the evidence that is needed to learn from the response."""
    return estimate.evidence


def belief(estimator: ByteClassEstimator, estimate: Estimate) -> Belief:
    """Return the estimator's current belief about a request."""
    evidence, known = evidence_of(estimate), estimator._known
    return known.believe(known.model("m"), estimate.category, evidence.x, evidence.text_bytes, evidence.source)


def test_an_ordinary_response_is_no_special_case() -> None:
    """Its result holds the estimate's error and no special case; that of a refused response also the reason."""
    estimator = taught()
    estimate = estimator.estimate(PROMPT, "")
    tokens = round(estimate.prompt_tokens)
    size = len(PROMPT.text) / tokens
    ordinary = Learning(estimate.prompt_tokens / tokens, under_counted=False, bytes_per_token=size)
    assert ordinary == estimator.observe(estimate, Usage(tokens))
    assert (False, None, False, False, False) == (
        ordinary.clipped,
        ordinary.refused,
        ordinary.truncated_by_pool,
        ordinary.started_anew,
        ordinary.returned,
    )
    cut = facts(WORDS * 20, truncate_prompt_tokens=90)
    learning = estimator.observe(estimator.estimate(cut, ""), Usage(90))
    assert (False, Refused.TRUNCATED, False) == (learning.clipped, learning.refused, learning.returned)


@pytest.mark.parametrize("tenant", ["", "tenant"])
def test_a_response_moves_prices_according_to_its_weight(tenant: str) -> None:
    """Within the expected error it counts fully, with a weight by the model's spread; so does a tenant's."""
    estimator = ByteClassEstimator(EstimatorSettings()) if tenant else taught()
    if tenant:
        for size in range(20):
            request = facts(WORDS * (5 + size))
            estimator.observe(estimator.estimate(request, tenant), Usage(len(request.text) // 4))
        estimator._known.residuals.put(CategoryKey("m", tenant), Residual(0.1, 0.1, responses=20))
    estimate = estimator.estimate(PROMPT, tenant)
    tokens, model = round(1.02 * estimate.prompt_tokens), estimator._known.model("m")
    expected = deepcopy(model.prices)
    expected.learn(evidence_of(estimate).x, tokens, belief(estimator, estimate).trust(model.residual.spread))
    estimator.observe(estimate, Usage(tokens))
    assert pytest.approx(expected.weights, rel=1e-4) == estimator.prices("m")


@pytest.mark.parametrize("tenant", ["", "tenant"])
def test_residuals_do_not_move_until_the_prices_have_settled(tenant: str) -> None:
    """Errors are first left to the prices: a hundred responses do not move the mean of the residuals."""
    estimator = ByteClassEstimator(EstimatorSettings())

    def residuals() -> set[float]:
        state = estimator.state()
        return {row.residual for row in state.models} | {row.residual for row in state.categories}

    for number in range(100):
        request = facts(WORDS * (5 + number % 20))
        estimator.observe(estimator.estimate(request, tenant), Usage(len(request.text) // 3))
    assert {0.0} == residuals()
    estimator.observe(estimator.estimate(PROMPT, tenant), Usage(len(PROMPT.text) // 3))
    assert 0.0 not in residuals()


def test_a_refusal_that_names_more_than_the_bound_is_a_miss() -> None:
    """The actual number is above the bound that was routed on, so q rises as after any miss."""
    estimator = taught()
    before = estimator.state().models[0]
    estimate = estimator.estimate(PROMPT, "")
    estimator.observe_overflow(estimate, Overflow(round(1.5 * estimate.prompt_bound)))
    (after,) = estimator.state().models
    assert pytest.approx((before.scored + 1, before.q + 0.5 * 0.99)) == (after.scored, after.q)


@pytest.mark.parametrize(("factor", "scored"), [(3.9, 1), (4.1, 0)])
def test_a_counter_that_is_off_by_more_than_four_times_is_ignored(factor: float, scored: int) -> None:
    """A usage that is off by more does not count towards the bound."""
    estimator = taught()
    before = estimator.state().models[0].scored
    estimate = estimator.estimate(PROMPT, "")
    estimator.observe(estimate, Usage(round(factor * estimate.prompt_tokens)))
    assert before + scored == estimator.state().models[0].scored


@pytest.mark.parametrize(("factor", "of_the_error"), [(3.9, True), (4.1, False)])
def test_a_broken_counter_does_not_affect_its_source_in_full(factor: float, *, of_the_error: bool) -> None:
    """A source with a low weight takes the full error as its own, but only the clipped one of a broken counter."""
    estimator = taught()
    model = estimator._known.model("m")
    estimate = estimator.estimate(PROMPT, "")
    voice = model.voices.observe(evidence_of(estimate).source)
    for _ in range(150):
        model.voices.observe(evidence_of(estimate).source)
    voice.own = Residual(0.0, 0.1)
    now, tokens = belief(estimator, estimate), round(factor * estimate.prompt_tokens)
    error = log(tokens / now.tokens)
    believed = clipped_error(error, now.scale)
    estimator.observe(estimate, Usage(tokens))
    weight, expected = voice.weight, Residual(0.0, 0.1)
    assert weight < 0.5 < abs(error - believed)
    alone = weight * believed + (1 - weight) * (error if of_the_error else believed)
    expected.learn(alone, now.doubt, 0.0, move_mean=True, weight=1 - weight)
    assert pytest.approx(expected.mean, rel=0.01) == voice.deviation


@pytest.mark.parametrize(("factor", "scored"), [(3.9, 1), (4.1, 0)])
def test_a_broken_counter_does_not_move_the_bound_of_new_parts(factor: float, scored: int) -> None:
    """The bound of text that follows a known prefix has its own q, which only plausible errors move."""
    estimator = taught()
    now = belief(estimator, estimator.estimate(PROMPT, ""))
    model = estimator._known.model("m")
    continued = Continued(model.prices, model.views, 0.01)
    voice = Voice()
    voice.credit = 1.0
    continued.learn(now, log(factor), 4.0, Residual(), voice)
    assert scored == continued.bound.scored


@pytest.mark.parametrize(("scales", "surprising"), [(2.3, False), (2.8, True)])
def test_a_rival_begins_when_most_responses_surprise(scales: float, *, surprising: bool) -> None:
    """Errors above 2.5 scales are surprising; smaller ones are ordinary, from however many clients."""
    estimator = taught()
    for client in range(12):
        request = facts(f"client {client}".encode().ljust(128) + WORDS * 20)
        estimate = estimator.estimate(request, "")
        off = exp(scales * belief(estimator, estimate).scale)
        estimator.observe(estimate, Usage(round(off * estimate.prompt_tokens)))
    contest = estimator._known._contests.get("m")
    assert surprising == (contest is not None)  # none is kept for a model that does not surprise
    assert surprising == (contest is not None and contest.rival is not None)


def test_a_possible_constant_of_a_tenant_is_reported_as_clipped() -> None:
    """Such an error moves neither prices nor the tenant's residual until there are enough responses to decide."""
    estimator = taught()
    before = estimator.prices("m")
    estimate = estimator.estimate(PROMPT, "tenant")
    learning = estimator.observe(estimate, Usage(round(estimate.prompt_tokens) + 1_500))
    assert (True, None) == (learning.clipped, learning.refused)
    assert before is estimator.prices("m")


@pytest.mark.parametrize(("tokens", "missed"), [(12, False), (13, True)])
def test_a_prompt_exactly_at_its_bound_is_not_a_miss(tokens: int, *, missed: bool) -> None:
    """The bound is inclusive."""
    estimator = taught(1)
    exact = estimator.estimate(facts(b"", exact_prompt_tokens=12), "")
    assert missed == estimator.observe(exact, Usage(tokens)).under_counted
