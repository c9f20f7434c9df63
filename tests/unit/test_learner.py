"""What the learner makes of responses: whose they are, and what they say about the pools."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from extproc.core.errors import ResponseFault
from extproc.core.estimator import make_estimator
from extproc.core.facts import Api, RequestHead, ResponseHead
from extproc.core.listener import Observation
from extproc.core.placing.decision import Decision, Mode
from extproc.core.placing.policy import Pool, Pools
from extproc.core.router.learner import Learner
from extproc.core.router.learning_budget import LearningBudget, LearningSettings
from extproc.core.router.placer import Placer
from extproc.core.router.router import Router
from extproc.core.router.unasked import UsageInStreams
from extproc.core.usage import Usage
from tests.unit.conftest import ESTIMATOR, TWO_POOLS, Recorder

POOLS = (Pool("short", 1_000, 1_024), Pool("long", 100_000))
HEAD = RequestHead("POST", "/v1/chat/completions")
OK = ResponseHead(200, "application/json")


def make_router(
    pools: Sequence[Pool] = TWO_POOLS, usage_in_streams: UsageInStreams = UsageInStreams.ASKED
) -> Router:
    """Return a router whose listener is a Recorder."""
    recorder, estimator, budget = Recorder(), make_estimator(ESTIMATOR), LearningBudget(LearningSettings())
    placer = Placer(Mode.ENFORCE, Pools(pools), estimator, 768 << 10)
    learner = Learner(Pools(pools), estimator, budget, recorder, 4 << 20, usage_in_streams=usage_in_streams)
    return Router(Mode.ENFORCE, placer, learner, recorder)


def observed(usage: Usage, **fields: Any) -> Observation:
    """Return what is observed of one response to a chat completion with these fields."""
    router = make_router(pools=POOLS)
    body = {"model": "m", "messages": [{"role": "user", "content": "Tell me all about it."}]} | fields
    decision = router.decide(Api.CHAT, HEAD, json.dumps(body).encode())
    assert "short" == decision.pool.name
    router.learner.learn(decision, OK, usage)
    assert isinstance(router.listener, Recorder)
    (observation,) = router.listener.calls_of("observed")
    assert isinstance(observation, Observation)
    return observation


@pytest.mark.parametrize(
    ("completion_tokens", "truncated"), [(986, False), (987, False), (1_010, True), (1_011, True), (1_012, False)]
)
def test_cuts_are_counted_by_what_the_pool_holds(completion_tokens: int, *, truncated: bool) -> None:
    """A response that ended at the pool's context, or one short of it, was cut there; thresholds cut nothing."""
    usage = Usage(13, completion_tokens, cut_by_length=True)
    assert truncated == observed(usage).learning.truncated_by_pool


def test_a_declared_output_that_the_pool_shortened_was_cut_by_it() -> None:
    """From 0.32 on vLLM gives 124 of 200 output tokens where a prompt leaves no more, and says nothing of it."""
    assert observed(Usage(900, 124, cut_by_length=True), max_tokens=200).learning.truncated_by_pool
    assert not observed(Usage(800, 200, cut_by_length=True), max_tokens=200).learning.truncated_by_pool


def kept(router: Router, model: str, **fields: Any) -> Decision | None:
    """Return the decision of a stream that asked for no usage, None when it is not kept."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "max_tokens": 9,
    } | fields
    decision = router.decide(Api.CHAT, HEAD, json.dumps(body).encode())
    return decision if router.learner.keeps(decision, 0.0) else None


def auto_router(policy: UsageInStreams = UsageInStreams.AUTO) -> Router:
    """Return a router with that policy."""
    return make_router(usage_in_streams=policy)


def test_streams_that_report_unasked_are_learned_from() -> None:
    """After one stream of a model that reported usage unasked, all of its streams are kept."""
    router = auto_router()
    decision = kept(router, "m")
    assert decision is not None
    router.learner.learn(decision, ResponseHead(200, "text/event-stream"), Usage(9, 9))
    for _ in range(5):
        again = kept(router, "m")
        assert again is not None
        router.learner.not_learned(again, ResponseFault.NO_USAGE)


def test_streams_that_never_report_are_tried_a_few_times() -> None:
    """Three whole streams without usage are enough; those that were cut say nothing; other models are tried."""
    router = auto_router()
    for fault in (ResponseFault.CUT_SHORT, *[ResponseFault.NO_USAGE] * 3):
        decision = kept(router, "m")
        assert decision is not None
        router.learner.not_learned(decision, fault)
    assert kept(router, "m") is None
    assert kept(router, "m", stream_options={"include_usage": True}) is not None
    assert kept(router, "other") is not None


@pytest.mark.parametrize(("policy", "is_kept"), [(UsageInStreams.ASKED, False), (UsageInStreams.ALWAYS, True)])
def test_what_streams_report_can_be_said(policy: UsageInStreams, *, is_kept: bool) -> None:
    """The operator may know that none, or all, report unasked."""
    router = auto_router(policy)
    for _ in range(5):
        decision = kept(router, "m")
        assert is_kept == (decision is not None)
        if decision is not None:
            router.learner.not_learned(decision, ResponseFault.NO_USAGE)


def test_embeddings_that_were_too_large_are_not_kept_again() -> None:
    """After a response longer than is read, requests of the model with as many prompts are released at once."""
    router = make_router()

    def embedded(prompts: int, model: str = "e") -> Decision | None:
        body = {"model": model, "input": ["a"] * prompts}
        decision = router.decide(Api.EMBEDDINGS, RequestHead("POST", "/v1/embeddings"), json.dumps(body).encode())
        return decision if router.learner.keeps(decision, 0.0) else None

    first = embedded(100)
    assert first is not None
    router.learner.not_learned(first, ResponseFault.TOO_LARGE)
    assert [True, False, False] == [embedded(prompts) is not None for prompts in (99, 100, 500)]
    assert embedded(500, "other") is not None


@pytest.mark.parametrize("per_s", [20, 100])
def test_clients_that_declare_much_are_learned_from_under_load(per_s: int) -> None:
    """Streams that may take 8,192 tokens and take 200 are asked for 200.

    What the young overdraw is paid back in ten seconds; from then on some are learned from in every second.
    """
    router, kept_at = make_router(), []
    fields = {"max_tokens": 8_192, "stream": True, "stream_options": {"include_usage": True}}
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello there."}]} | fields).encode()
    for number in range(20 * per_s):
        decision = router.decide(Api.CHAT, HEAD, body)
        if router.learner.keeps(decision, number / per_s):
            kept_at.append(number // per_s)
            router.learner.learn(decision, OK, Usage(13, 200))
            router.learner.settle(decision, 203)
    assert set(range(11, 20)) <= set(kept_at)
