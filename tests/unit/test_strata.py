"""Strata of the traffic: which stratum a request belongs to, which one lags in learning, and
for how many requests a response counts.
"""

import json

import pytest

from extproc.core.errors import ResponseFault
from extproc.core.estimator.protocol import Refused
from extproc.core.facts import Api, RequestHead, ResponseHead
from extproc.core.listener import Observation
from extproc.core.placing.decision import Decision
from extproc.core.placing.policy import Reason
from extproc.core.placing.stratum import (
    ALL_STRATA,
    Declared,
    Prompt,
    Response,
    Stratum,
    declared_class,
    stratum_of,
)
from extproc.core.router.learning_budget import LearningBudget, LearningSettings
from extproc.core.router.router import Router
from extproc.core.router.strata import Shares
from extproc.core.usage import Overflow, Usage
from tests.unit.conftest import Recorder
from tests.unit.test_learner import HEAD, make_router

OK = ResponseHead(200, "application/json")


@pytest.mark.parametrize(
    ("limit", "declared"),
    [
        (None, Declared.NONE),
        (0, Declared.UP_TO_512),
        (512, Declared.UP_TO_512),
        (513, Declared.UP_TO_2K),
        (2_048, Declared.UP_TO_2K),
        (2_049, Declared.ABOVE_2K),
        (1 << 40, Declared.ABOVE_2K),
    ],
)
@pytest.mark.parametrize(
    ("prompt_tokens", "prompt"),
    [
        (0.0, Prompt.UP_TO_1K),
        (1_024.0, Prompt.UP_TO_1K),
        (1_024.5, Prompt.UP_TO_8K),
        (8_192.0, Prompt.UP_TO_8K),
        (8_193.0, Prompt.ABOVE_8K),
    ],
)
@pytest.mark.parametrize(("stream", "response"), [(False, Response.JSON), (True, Response.STREAM)])
def test_a_request_belongs_to_one_stratum(
    limit: int | None,
    declared: Declared,
    prompt_tokens: float,
    prompt: Prompt,
    *,
    stream: bool,
    response: Response,
) -> None:
    """It depends on the declared limit, the estimate, and whether the response is streamed."""
    assert Stratum(declared, prompt, response) == stratum_of(limit, prompt_tokens, stream=stream)
    assert declared is declared_class(limit)


def test_strata_are_few_and_all_different() -> None:
    """They are labels of metrics."""
    assert 24 == len(ALL_STRATA) == len(set(ALL_STRATA))


def test_a_stratum_that_used_more_than_its_share_is_not_behind() -> None:
    """Of two strata, one that has used more than half waits; one that has used half or less does not."""
    shares = Shares()
    assert shares.is_behind("a", 0.0)
    shares.spend("a", 10)
    assert shares.is_behind("a", 0.0)
    assert shares.is_behind("b", 0.0)
    assert not shares.is_behind("a", 0.0)
    shares.spend("b", 10)
    assert [True, True] == [shares.is_behind(each, 0.0) for each in "ab"]
    shares.spend("b", 1)
    assert [True, False] == [shares.is_behind(each, 0.0) for each in "ab"]
    shares.spend("b", -2)
    assert [False, True] == [shares.is_behind(each, 0.0) for each in "ab"]


def test_a_refund_of_more_than_was_spent_leaves_nothing_spent() -> None:
    """After it, a stratum is exactly as far behind as one that spent nothing."""
    shares = Shares()
    for stratum in "ab":
        shares.is_behind(stratum, 0.0)
    shares.spend("a", -5)
    shares.spend("b", 1e-9)
    assert (True, False) == (shares.is_behind("a", 0.0), shares.is_behind("b", 0.0))
    shares.spend("a", 2e-9)
    assert (False, True) == (shares.is_behind("a", 0.0), shares.is_behind("b", 0.0))


def test_no_stratum_is_refunded_more_than_it_spent() -> None:
    """A refund of spending that has partly faded does not become a claim on others."""
    shares = Shares()
    assert shares.is_behind("a", 0.0)
    assert shares.is_behind("b", 0.0)
    shares.spend("a", -100)
    shares.spend("b", 0.5)
    assert [True, False] == [shares.is_behind(each, 0.0) for each in "ab"]
    shares.spend("b", -0.5)
    shares.spend("a", 2)
    shares.spend("b", 1)
    assert [False, True] == [shares.is_behind(each, 0.0) for each in "ab"]


def test_spending_may_be_forgotten() -> None:
    """The stratum that spent most is behind once its spending is forgotten;
    forgetting an unknown stratum changes nothing.
    """
    shares = Shares()
    assert [True, True] == [shares.is_behind(each, 0.0) for each in "ab"]
    shares.spend("a", 10)
    shares.spend("b", 1)
    shares.forget("a")
    assert [True, False] == [shares.is_behind(each, 0.0) for each in "ab"]
    shares.forget("c")


def test_shares_are_among_the_strata_that_asked_recently() -> None:
    """A stratum that has not asked for two periods has no share that the others must leave."""
    shares = Shares()
    for stratum in "abc":
        assert shares.is_behind(stratum, 0.0)
    shares.spend("a", 10)
    shares.spend("b", 10)
    assert not shares.is_behind("a", 9.5)
    assert not shares.is_behind("a", 10.0)  # the others asked within the ten seconds before
    assert not shares.is_behind("a", 19.5)
    assert shares.is_behind("a", 20.0)
    assert shares.is_behind("b", 20.0)


def test_spending_fades_by_half_per_period() -> None:
    """Ten spent in the previous period count as five."""
    shares = Shares()
    assert shares.is_behind("a", 0.0)
    shares.spend("a", 10)
    assert shares.is_behind("b", 10.0)
    shares.spend("b", 4)
    assert [False, True] == [shares.is_behind(each, 10.0) for each in "ab"]
    shares.spend("b", 2)
    assert [True, False] == [shares.is_behind(each, 10.0) for each in "ab"]


def decided(router: Router, **fields: object) -> Decision:
    """Return the decision on a chat completion."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Tell me all about it."}]} | fields
    return router.decide(Api.CHAT, HEAD, json.dumps(body).encode())


def stand_for(router: Router) -> list[int]:
    """Return for how many requests each observation counts."""
    assert isinstance(router.listener, Recorder)
    observations = router.listener.calls_of("observed")
    assert all(isinstance(each, Observation) for each in observations)
    return [each.stands_for for each in observations]


def test_a_response_counts_for_the_requests_of_its_stratum() -> None:
    """Each response that is learned from counts for the requests of its stratum since the previous one."""
    router = make_router(learning=LearningSettings(burst_messages=0))
    much = [decided(router, max_tokens=8_192) for _ in range(5)]
    little = [decided(router, max_tokens=100) for _ in range(3)]
    for decision in (little[0], much[0], much[1]):
        router.learner.learn(decision, OK, Usage(13, 9))
    decided(router, max_tokens=8_192)
    router.learner.learn(much[2], OK, Usage(13, 9))
    assert [3, 5, 0, 1] == stand_for(router)


def test_requests_whose_responses_are_not_read_count_as_well() -> None:
    """Usage may come from a log, and streams without usage are part of the traffic."""
    router = make_router()
    first = decided(router, stream=True, max_tokens=9)
    asked = decided(router, stream=True, max_tokens=9, stream_options={"include_usage": True})
    assert first.stratum == asked.stratum
    router.learner.learn(asked, OK, Usage(13, 9))
    assert [2] == stand_for(router)


def test_a_response_that_judges_no_bound_counts_for_no_request() -> None:
    """Implausible usage and refusals count for no requests; the next response counts for theirs."""
    router = make_router()
    decisions = [decided(router, max_tokens=100) for _ in range(4)]
    router.learner.learn(decisions[0], OK, Usage(1_000_000, 9))
    router.learner.learn(decisions[1], OK, Overflow(2_000))
    router.learner.not_learned(decisions[2], ResponseFault.CUT_SHORT)
    router.learner.learn(decisions[3], OK, Usage(13, 9))
    assert [0, 4] == stand_for(router)
    assert isinstance(router.listener, Recorder)
    refused = [each.learning.refused for each in router.listener.calls_of("observed")]
    assert [Refused.IMPLAUSIBLE, None] == refused


@pytest.mark.parametrize(("prompt_tokens", "reported"), [(13, False), (2_000, True), (1_000_000, False)])
def test_a_missed_bound_is_reported_to_the_budget(
    prompt_tokens: int, *, reported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A miss is reported if the bound was exceeded and the usage is plausible."""
    missed: list[object] = []
    monkeypatch.setattr(LearningBudget, "missed", lambda _, stratum: missed.append(stratum))
    router = make_router()
    decision = decided(router, max_tokens=100)
    router.learner.learn(decision, OK, Usage(prompt_tokens, 9))
    assert [decision.stratum] * reported == missed


def test_token_ids_are_judged_and_a_cut_prompt_is_not() -> None:
    """The bound of an exact estimate is judged; the usage of a truncated
    prompt says nothing about the complete one.
    """
    router = make_router()
    body = json.dumps({"model": "m", "prompt": [1, 2, 3], "max_tokens": 5}).encode()
    exact = router.decide(Api.COMPLETIONS, RequestHead("POST", "/v1/completions"), body)
    cut = decided(router, truncate_prompt_tokens=5, max_tokens=5)
    assert exact.stratum == cut.stratum
    router.learner.learn(cut, OK, Usage(5, 3))
    router.learner.learn(exact, OK, Usage(3, 3))
    assert [0, 2] == stand_for(router)


def test_a_request_without_an_estimate_belongs_to_no_stratum() -> None:
    """It is not part of the traffic whose bounds are judged."""
    router = make_router()
    for decision in (
        router.unsure(Api.CHAT, Reason.DEADLINE, 70, HEAD),
        router.decide(Api.CHAT, HEAD, b"no body"),
    ):
        assert None is decision.stratum
        assert not router.learner.keeps(decision, 0.0)
    assert not router.learner.unjudged
