"""What the learner makes of responses: whose they are, and what they say about the pools."""

import json
from typing import Any

import pytest

from extproc.core.facts import Api, RequestHead, ResponseHead
from extproc.core.listener import Observation
from extproc.core.placing.policy import Pool
from extproc.core.usage import Usage
from tests.unit.conftest import Recorder, make_router

POOLS = (Pool("short", 1_000, 1_024), Pool("long", 100_000))
HEAD = RequestHead("POST", "/v1/chat/completions")
OK = ResponseHead(200, "application/json")


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
