"""How an exchange handles a response: lessons, refusals, repairs, and streams that are kept."""

import gzip
import json
from typing import Any

import pytest

from extproc.core.errors import ResponseFault
from extproc.core.exchange.events import (
    BodyMode,
    Event,
    Modes,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
)
from extproc.core.facts import ResponseHead
from extproc.core.listener import Misconfiguration
from extproc.core.router.learning_budget import LearningBudget
from tests.unit.exchanges import (
    BUFFERED,
    CHAT,
    JSON_RESPONSE,
    SSE_RESPONSE,
    STREAMED,
    Connect,
    chat,
    response,
    usage,
    whole,
)


@pytest.mark.parametrize(
    ("head", "body", "why"),
    [
        (ResponseHead(500, "application/json"), usage(), ResponseFault.STATUS),
        (ResponseHead(304, "application/json"), b"", ResponseFault.STATUS),
        (ResponseHead(400, "application/json"), b'{"error":{"message":"no such field"}}', ResponseFault.STATUS),
        (JSON_RESPONSE, b"{broken", ResponseFault.NOT_JSON),
        (JSON_RESPONSE, b'{"usage":null}', ResponseFault.NO_USAGE),
        (JSON_RESPONSE, usage(-5), ResponseFault.WRONG_USAGE),
        (JSON_RESPONSE, usage(0), ResponseFault.WRONG_USAGE),
        (ResponseHead(200, "application/json", "zstd"), usage(), ResponseFault.ENCODING),
        (
            ResponseHead(200, "application/json", "gzip"),
            gzip.compress(usage(), mtime=0)[:20],
            ResponseFault.CUT_SHORT,
        ),
        (SSE_RESPONSE, b'data: {"choices":[]}\n\n', ResponseFault.CUT_SHORT),
    ],
)
def test_nonsense_teaches_nothing(connect: Connect, head: Any, body: bytes, why: Any) -> None:
    """A response that is not a readable 2xx with plausible usage is counted by its cause and not learned from."""
    gateway = connect(STREAMED)
    gateway.send_all([*whole(chat()), *response(body, [7], head)])
    assert ([], [why]) == (gateway.recorder.calls_of("observed"), gateway.recorder.calls_of("not_learned"))


def test_usage_a_million_times_too_large_does_not_move_the_estimate(connect: Connect) -> None:
    """The estimator rejects usage beyond what the bytes could hold, and the observation says so."""
    gateway = connect(STREAMED)
    gateway.send_all([*whole(chat()), *response(usage(5_000_000))])
    (observation,) = gateway.recorder.calls_of("observed")
    assert "implausible" == observation.learning.refused
    assert () == gateway.exchange._router.placer.estimator.state().categories


def test_a_refusal_for_length_is_counted(connect: Connect) -> None:
    """The pool's 400 for a prompt over its context is an overflow, not an error of the response."""
    gateway = connect(STREAMED)
    message = "This model's maximum context length is 10 tokens. However, your request has 12 input tokens."
    refusal = json.dumps({"error": {"message": message, "param": "input_tokens", "code": 400}}).encode()
    gateway.send_all([*whole(chat()), *response(refusal, head=ResponseHead(400, "application/json"))])
    assert 1 == len(gateway.recorder.calls_of("overflowed"))


def test_a_refusal_for_length_teaches(connect: Connect) -> None:
    """The tokens that a refusal names raise the estimate of the same prompt."""
    gateway = connect(STREAMED)
    router = gateway.exchange._router
    message = "This model's maximum context length is 10 tokens. However, your request has 900 input tokens."
    refusal = json.dumps({"error": {"message": message, "code": 400}}).encode()
    body = chat("How are you? " * 100)
    gateway.send_all([*whole(body), *response(refusal, head=ResponseHead(400, "application/json"))])
    (before,) = gateway.decisions
    after = router.decide(before.api, CHAT, body)
    assert before.budget.prompt_tokens < after.budget.prompt_tokens


def test_a_repair_is_counted(connect: Connect) -> None:
    """A response that took Envoy two attempts counts as retried, and still teaches."""
    gateway = connect(STREAMED)
    gateway.send_all([*whole(chat()), *response(usage(), head=ResponseHead(200, "application/json", attempts=2))])
    assert (1, 1) == (len(gateway.recorder.calls_of("retried")), len(gateway.recorder.calls_of("observed")))


@pytest.mark.parametrize(("status", "attempts", "pool"), [(200, 1, "short"), (400, 1, "short"), (400, 2, "long")])
def test_a_response_counts_as_read_from_its_head_on(
    connect: Connect, status: int, attempts: int, pool: str
) -> None:
    """Refused and served requests are compared as of their heads: one that is served takes longer to end."""
    gateway = connect(STREAMED)
    head = ResponseHead(status, "application/json", attempts=attempts)
    gateway.send_all([*whole(chat()), ResponseHeaders(head)])
    ((_, responded, served_by),) = gateway.recorder.arguments_of("responded")
    assert (status, pool) == (responded.status, served_by.name)


def test_a_response_before_the_end_of_the_request_ends_it(connect: Connect) -> None:
    """After the gateway's own early response there is nothing left to decide."""
    gateway = connect(BUFFERED)
    gateway.send(RequestHeaders(CHAT))
    gateway.send(ResponseHeaders(ResponseHead(413, "text/plain")))
    assert ([ResponseFault.EARLY_RESPONSE], True) == (gateway.recorder.calls_of("not_learned"), gateway.closed)


def test_a_response_without_a_request_passes(connect: Connect) -> None:
    """A response phase whose request the router never saw passes."""
    gateway = connect(STREAMED)
    gateway.send(ResponseHeaders(JSON_RESPONSE))
    assert gateway.closed


@pytest.mark.parametrize(
    ("max_tokens", "status", "served_by", "repairs"),
    [(50, 200, "long", 1), (50, 400, "long", 0), (50, 503, "long", 0), (5_000, 200, "long", 0)],
)
def test_a_repair_is_a_retry_that_succeeds_after_a_smaller_pool_failed(
    connect: Connect, max_tokens: int, status: int, served_by: str, repairs: int
) -> None:
    """A retry is no repair if it fails too, or if the request went to the default pool anyway."""
    gateway = connect(STREAMED)
    head = ResponseHead(status, "application/json", attempts=2)
    gateway.send_all([*whole(chat(max_tokens=max_tokens)), *response(usage(), head=head)])
    assert repairs == len(gateway.recorder.calls_of("retried"))
    assert {served_by} >= {each.served_by.name for each in gateway.recorder.calls_of("observed")}


@pytest.mark.parametrize(("attempts", "pool"), [(1, "short"), (2, "long")])
def test_a_refusal_belongs_to_the_pool_that_was_tried_last(connect: Connect, attempts: int, pool: str) -> None:
    """After a second attempt, the refusal came from the default pool."""
    gateway = connect(STREAMED)
    refused = ResponseHead(400, "application/json", attempts=attempts)
    refusal = b'{"error":{"message":"maximum context length is 10 tokens","code":400}}'
    gateway.send_all([*whole(chat()), *response(refusal, head=refused)])
    ((_, _, served_by),) = gateway.recorder.arguments_of("overflowed")
    assert pool == served_by.name


def test_a_stream_is_kept_or_released(connect: Connect) -> None:
    """Each decision is followed by one of the two, and a released stream is closed at once."""
    gateway = connect(STREAMED)
    gateway.send_all(whole(chat()))
    assert (1, 0) == (len(gateway.recorder.calls_of("kept")), len(gateway.recorder.calls_of("released")))
    gateway = connect(STREAMED)
    gateway.send_all(whole(b"{"))
    assert (0, 1) == (len(gateway.recorder.calls_of("kept")), len(gateway.recorder.calls_of("released")))
    assert gateway.closed


@pytest.mark.parametrize("stream", [True, False])
def test_buffered_responses_are_reported_and_streams_not_kept(connect: Connect, *, stream: bool) -> None:
    """If the gateway buffers responses, a streamed one passes only after the router has closed its stream."""
    gateway = connect(Modes(BodyMode.STREAMED, BodyMode.BUFFERED, body_without_waiting=True))
    gateway.send_all(whole(chat(stream=stream, stream_options={"include_usage": True})))
    assert [Misconfiguration.RESPONSE_BUFFERED] == gateway.recorder.calls_of("misconfigured")
    assert (1, stream) == (len(gateway.decisions), gateway.closed)


def test_a_kept_stream_costs_the_messages_that_arrived(connect: Connect) -> None:
    """A stream with a huge declared limit returns its share of the budget once its few messages have passed."""
    gateway = connect(STREAMED)
    router = gateway.exchange._router
    events = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}\n\ndata: [DONE]\n\n'
    gateway.send_all(whole(chat(max_tokens=90_000, stream=True, stream_options={"include_usage": True})))
    assert 5_000 * 7 / 8 == router.learner.budget._left
    gateway.send_all(response(events, head=SSE_RESPONSE))
    gateway.exchange.end()
    assert 4_990 < router.learner.budget._left < 5_000


def test_a_client_that_disconnects_in_mid_response_is_counted(connect: Connect) -> None:
    """A stream that ends while its response is read teaches nothing."""
    gateway = connect(STREAMED)
    gateway.send_all([*whole(chat()), *response(usage(), [9])[:2]])
    gateway.exchange.end()
    assert [ResponseFault.CUT_SHORT] == gateway.recorder.calls_of("not_learned")


def test_a_stream_that_ends_before_its_response_begins_is_counted(connect: Connect) -> None:
    """A kept stream on which no response came teaches nothing, and is counted like one that was cut."""
    gateway = connect(STREAMED)
    gateway.send_all(whole(chat()))
    gateway.exchange.end()
    assert [ResponseFault.CUT_SHORT] == gateway.recorder.calls_of("not_learned")


def test_skipped_response_headers_are_reported(connect: Connect) -> None:
    """A response that begins with its body has response_header_mode SKIP: it is reported, and passes unread."""
    gateway = connect(STREAMED)
    gateway.send_all([*whole(chat()), ResponseBody(usage(), end_of_stream=True)])
    gateway.exchange.end()
    assert [Misconfiguration.NO_RESPONSE_HEADERS] == gateway.recorder.calls_of("misconfigured")
    assert ([], []) == (gateway.recorder.calls_of("observed"), gateway.recorder.calls_of("not_learned"))
    assert gateway.closed


@pytest.mark.parametrize(
    ("events", "messages"),
    [
        (response(usage(), [9]), 3),
        (response(usage(), head=ResponseHead(500, "application/json")), 1),
        ([ResponseBody(usage(), end_of_stream=True)], 1),
        ([], 0),
    ],
    ids=["learned", "an error", "without headers", "none"],
)
def test_the_learning_budget_is_charged_for_each_message(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, *, events: list[Event], messages: int
) -> None:
    """A kept stream costs as many messages as its response had while it was open; three are usual for JSON."""
    charged = []
    monkeypatch.setattr(
        LearningBudget, "pay_back", lambda _self, usual, used, **_keys: charged.append((usual, used))
    )
    gateway = connect(STREAMED)
    gateway.send_all([*whole(chat()), *events])
    gateway.exchange.end()
    assert [(3, messages)] == charged


@pytest.mark.parametrize(
    ("head", "last"),
    [
        (
            SSE_RESPONSE,
            b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}\n\ndata: [DONE]\n\n',
        ),
        (JSON_RESPONSE, usage()),
    ],
)
def test_a_response_teaches_before_the_end_of_its_body(connect: Connect, head: ResponseHead, last: bytes) -> None:
    """The last event of a stream completes the lesson, because many clients disconnect there; so does the last
    brace of a JSON document, because its end comes in a message of its own.
    """
    gateway = connect(STREAMED)
    gateway.send_all([*whole(chat(stream=head is SSE_RESPONSE, stream_options={"include_usage": True}))])
    gateway.send(ResponseHeaders(head))
    gateway.send(ResponseBody(last, end_of_stream=False))
    gateway.exchange.end()
    assert (1, []) == (len(gateway.recorder.calls_of("observed")), gateway.recorder.calls_of("not_learned"))
    assert gateway.closed


def test_a_compressed_refusal_is_understood(connect: Connect) -> None:
    """A pool's 400 is decompressed like any response."""
    gateway = connect(STREAMED)
    refusal = gzip.compress(b'{"error":{"message":"maximum context length is 10 tokens","code":400}}')
    gateway.send_all([*whole(chat()), *response(refusal, [5], ResponseHead(400, "application/json", "gzip"))])
    assert len(gateway.recorder.calls_of("overflowed")) == 1
