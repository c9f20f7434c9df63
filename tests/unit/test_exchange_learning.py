"""Learning from responses: which ones teach, what they cost, and what is counted."""

import json
from typing import Any

import pytest

from extproc.core.errors import ResponseFault
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.exchange.events import (
    Modes,
    RequestBody,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
)
from extproc.core.facts import RequestHead, ResponseHead
from extproc.core.placing.policy import Reason
from extproc.core.router.learning_budget import LearningSettings
from tests.unit.exchanges import (
    CHAT,
    JSON_RESPONSE,
    ROUTABLE,
    SSE_RESPONSE,
    STREAMED,
    Connect,
    chat,
    response,
    usage,
    whole,
)

COMPLETIONS = RequestHead("POST", "/v1/completions")
CHUNKS = [b'data: {"choices":[{"text":"a"}]}\n\n'] * 3
LAST = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3}}\n\ndata: [DONE]\n\n'


def token_ids(**fields: Any) -> bytes:
    """Return a completion request whose prompt is token ids, so its count is exact and it is never young."""
    return json.dumps({"model": "m", "prompt": [1, 2, 3], "max_tokens": 10, **fields}).encode()


def kept(gateway: Any, body: bytes, head: RequestHead = COMPLETIONS) -> bool:
    """Send a request; return whether its stream stays open to learn from the response."""
    gateway.send_all(whole(body, head))
    return not gateway.closed


@pytest.mark.parametrize("modes", ROUTABLE)
def test_a_request_whose_bound_does_not_fit_goes_long(connect: Connect, modes: Modes) -> None:
    """The upper bound decides: if only the likeliest count fits, the request goes to the larger pool."""
    gateway = connect(modes)
    gateway.send_all(whole(chat(max_tokens=0)))
    (small,) = gateway.decisions
    output = 1_000 - small.budget.prompt_tokens
    assert small.budget.prompt_tokens < small.budget.prompt_bound
    for max_tokens, pool, reason in (
        (output, "long", Reason.TOO_LONG),
        (1_000 - small.budget.prompt_bound + 1, "long", Reason.TOO_LONG),
        (1_000 - small.budget.prompt_bound, "short", Reason.FITS),
    ):
        gateway = connect(modes)
        gateway.send_all(whole(chat(max_tokens=max_tokens)))
        (decision,) = gateway.decisions
        assert (pool, reason) == (decision.pool.name, decision.reason)


@pytest.mark.parametrize(
    ("attempts", "status", "max_tokens", "repairs"),
    [
        (1, 200, 50, 0),
        (1, 200, 5_000, 0),
        (1, 400, 50, 0),
        (2, 200, 50, 1),
        (3, 200, 50, 1),
        (2, 200, 5_000, 0),
        (2, 500, 50, 0),
    ],
)
def test_a_retry_takes_more_than_one_attempt(
    connect: Connect, attempts: int, status: int, max_tokens: int, repairs: int
) -> None:
    """A response at the first attempt needed no repair, and a retry that fails repairs nothing."""
    gateway = connect(STREAMED)
    head = ResponseHead(status, "application/json", attempts=attempts)
    gateway.send_all([*whole(chat(max_tokens=max_tokens)), *response(usage(), head=head)])
    assert repairs == len(gateway.recorder.calls_of("retried"))


@pytest.mark.parametrize(
    ("attempts", "max_tokens", "served_by"), [(1, 50, "short"), (2, 50, "long"), (1, 5_000, "long")]
)
def test_lessons_belong_to_the_pool_that_responded(
    connect: Connect, attempts: int, max_tokens: int, served_by: str
) -> None:
    """At the first attempt that is the chosen pool, later the default one."""
    gateway = connect(STREAMED)
    head = ResponseHead(200, "application/json", attempts=attempts)
    gateway.send_all([*whole(chat(max_tokens=max_tokens)), *response(usage(), head=head)])
    assert [served_by] == [each.served_by.name for each in gateway.recorder.calls_of("observed")]


def test_a_json_response_costs_three_messages_at_most(connect: Connect) -> None:
    """A kept stream pays in advance for headers, one piece of body and the end: a budget of three is used up."""
    for burst, streams in ((3, 1), (4, 2), (6, 2), (7, 3)):
        gateway = connect(STREAMED, learning=LearningSettings(messages_per_s=0, burst_messages=burst))
        taken = [kept(gateway.another(), token_ids()) for _ in range(streams + 1)]
        assert [True] * streams + [False] == taken


@pytest.mark.parametrize(("fields", "messages"), [({}, 13), ({"n": 3}, 33), ({"n": 2, "best_of": 4}, 43)])
def test_a_stream_costs_a_message_for_each_token_of_each_sequence(
    connect: Connect, fields: dict[str, Any], messages: int
) -> None:
    """A streamed response has up to one message per token of each of its sequences."""
    body = token_ids(stream=True, stream_options={"include_usage": True}, **fields)
    for burst, second in ((messages + 1, True), (messages, False)):
        gateway = connect(STREAMED, learning=LearningSettings(messages_per_s=0, burst_messages=burst))
        assert kept(gateway, body)
        assert second == kept(gateway.another(), body)


def test_every_message_of_a_response_is_paid_for(connect: Connect) -> None:
    """A finished response has cost as many messages as arrived: its headers and each piece of its body."""
    gateway = connect(STREAMED, learning=LearningSettings(messages_per_s=0, burst_messages=100))
    assert kept(gateway, token_ids(stream=True, stream_options={"include_usage": True}))
    gateway.send(ResponseHeaders(SSE_RESPONSE))
    for chunk in [*CHUNKS, LAST]:
        gateway.send(ResponseBody(chunk, end_of_stream=False))
    gateway.exchange.end()
    assert 1 == len(gateway.recorder.calls_of("observed"))
    taken = [gateway.learning.admit(each, stratum=each, young=False, now_s=0.0) for each in (94, 1, 2)]
    assert [True, True, False] == taken


def test_the_end_of_a_stream_is_settled_once(connect: Connect) -> None:
    """Messages that did not arrive are refunded when the stream ends, and only once."""
    gateway = connect(STREAMED, learning=LearningSettings(messages_per_s=0, burst_messages=100))
    assert kept(gateway, token_ids())
    gateway.exchange.end()
    assert gateway.learning.admit(100, young=False, now_s=0.0)
    gateway.exchange.end()
    assert not gateway.learning.admit(1, young=False, now_s=0.0)


def test_young_categories_are_learned_from_on_credit(connect: Connect) -> None:
    """If the budget is used up, a category with few responses is still learned from; others are not."""
    gateway = connect(
        STREAMED,
        learning=LearningSettings(messages_per_s=0, burst_messages=3),
        estimator=EstimatorSettings(young_observations=2),
    )
    assert kept(gateway, token_ids())
    assert not kept(gateway.another(), token_ids())
    assert kept(gateway.another(), chat(), CHAT)
    assert not kept(gateway.another(), chat(), CHAT)  # they may overdraw the budget by one burst


@pytest.mark.parametrize(("responses", "still_kept"), [(0, True), (1, True), (2, False)])
def test_a_category_is_young_until_it_has_its_responses(
    connect: Connect, responses: int, *, still_kept: bool
) -> None:
    """With `young_observations: 2` a used-up budget is overdrawn for the first two responses of a category."""
    gateway = connect(
        STREAMED,
        learning=LearningSettings(messages_per_s=0, burst_messages=12),
        estimator=EstimatorSettings(young_observations=2),
    )
    for _ in range(responses):
        stream = gateway.another()
        stream.send_all([*whole(chat()), *response(usage())])
        stream.exchange.end()
    while kept(gateway.another(), token_ids()):
        pass
    assert still_kept == kept(gateway.another(), chat(), CHAT)


def test_a_stream_that_reports_no_usage_is_not_kept(connect: Connect) -> None:
    """A stream that was not asked for its usage cannot teach; one that was is kept."""
    assert not kept(connect(STREAMED), chat(stream=True), CHAT)
    assert kept(connect(STREAMED), chat(stream=True, stream_options={"include_usage": True}), CHAT)


def test_a_models_name_is_truncated_to_the_length_of_a_key(connect: Connect) -> None:
    """Names come from clients: a name of ten kilobytes is learned under its truncated form."""
    gateway = connect(STREAMED)
    gateway.send_all([*whole(chat(model="m" * 10_000)), *response(usage())])
    (row,) = gateway.estimator.state().models
    assert len(row.model) == 256


def test_a_response_that_ends_with_its_headers_is_settled(connect: Connect) -> None:
    """A 2xx without a body has no usage; it is counted, and its stream is closed."""
    gateway = connect(STREAMED)
    gateway.send(RequestHeaders(CHAT))
    gateway.send(RequestBody(chat(), end_of_stream=True))
    gateway.send(ResponseHeaders(JSON_RESPONSE, end_of_stream=True))
    assert gateway.closed
    assert 1 == len(gateway.recorder.calls_of("not_learned"))


def test_an_undecodable_response_is_read_no_further(connect: Connect) -> None:
    """Compressed data that does not decode is counted by its cause at once, and the rest passes unread."""
    gateway = connect(STREAMED)
    gateway.send_all(whole(chat()))
    gateway.send(ResponseHeaders(ResponseHead(200, "application/json", "gzip")))
    gateway.send(ResponseBody(b"this is no gzip", end_of_stream=False))
    assert [ResponseFault.ENCODING] == gateway.recorder.calls_of("not_learned")
    assert gateway.closed
