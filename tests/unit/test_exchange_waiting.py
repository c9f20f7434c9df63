"""Headers of a JSON response wait for its body: what they get, when, and in which modes."""

from typing import Any

import pytest

from extproc.core.exchange.events import (
    BodyMode,
    Close,
    ContinueBody,
    ContinueHeaders,
    ContinueTrailers,
    Deadline,
    Drain,
    Event,
    Modes,
    Phase,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
)
from extproc.core.exchange.settings import CloseRule
from extproc.core.facts import ResponseHead
from extproc.core.reading.reader import JsonReader
from tests.unit.exchanges import (
    BUFFERED,
    JSON_RESPONSE,
    SSE_RESPONSE,
    STREAMED,
    Connect,
    chat,
    response,
    usage,
    whole,
)

HEADERS, PIECE = ContinueHeaders(Phase.RESPONSE), ContinueBody(Phase.RESPONSE)


def replies(gateway: Any, events: list[Event]) -> list[list[Any]]:
    """Send events to the exchange; return the replies to each."""
    return [list(gateway.exchange.handle(event, 0.0)) for event in events]


def test_a_json_response_in_one_piece_is_answered_by_the_close_alone(connect: Connect) -> None:
    """Its headers wait for the body, since Envoy stops its timer at the first of two replies."""
    gateway = connect(STREAMED)
    gateway.send_all(whole(chat()))
    began, ended = replies(gateway, response(usage())[:2])
    assert ([], [Close()]) == (began, ended)
    gateway.exchange.end()
    assert 1 == len(gateway.recorder.calls_of("observed"))


def test_headers_of_a_response_are_replied_to_with_the_first_piece(connect: Connect) -> None:
    """The pieces after the first are replied to one by one, and the last one ends the exchange."""
    gateway = connect(STREAMED)
    gateway.send_all(whole(chat()))
    assert [[], [HEADERS, PIECE], [PIECE], [Close()]] == replies(gateway, response(usage(), [9, 20])[:4])


@pytest.mark.parametrize(
    ("event", "replied"),
    [
        (ResponseBody(usage(), end_of_stream=True), [HEADERS, PIECE]),
        (ResponseTrailers(), [HEADERS, ContinueTrailers(Phase.RESPONSE)]),
        (Drain(), [HEADERS]),
    ],
)
def test_a_gateway_that_must_not_be_left_gets_all_replies(
    connect: Connect, event: Event, replied: list[Any]
) -> None:
    """With `exchange.close: never` headers that wait are replied to at whatever comes next, and before it."""
    gateway = connect(STREAMED, close=CloseRule.NEVER)
    gateway.send_all(whole(chat()))
    assert [[], replied] == replies(gateway, [ResponseHeaders(JSON_RESPONSE), event])


def test_headers_that_wait_are_replied_to_in_spite_of_an_internal_error(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If reading a response's body raises, its headers and the body pass."""
    gateway = connect(STREAMED, close=CloseRule.NEVER)
    gateway.send_all(whole(chat()))
    monkeypatch.setattr(JsonReader, "feed", lambda *_: 1 / 0)
    assert [[], [HEADERS, PIECE], [PIECE]] == replies(gateway, response(usage())[:3])
    assert 1 == len(gateway.recorder.calls_of("failed"))


def test_headers_of_a_response_wait_no_longer_than_the_deadline(connect: Connect) -> None:
    """If the body does not come they are replied to, once, and the response is learned from when it has come."""
    gateway = connect(STREAMED)
    gateway.send_all(whole(chat()))
    head, body, _ = response(usage())
    assert [[]] == replies(gateway, [head])
    assert gateway.exchange.holding
    assert [[HEADERS]] == replies(gateway, [Deadline()])
    assert not gateway.exchange.holding
    assert [[], [Close()]] == replies(gateway, [Deadline(), body])
    gateway.exchange.end()
    assert 1 == len(gateway.recorder.calls_of("observed"))


def test_a_drain_answers_headers_that_wait(connect: Connect) -> None:
    """The close that ends the exchange in a drain is their reply, too."""
    gateway = connect(STREAMED)
    gateway.send_all(whole(chat()))
    assert [[], [Close()]] == replies(gateway, [ResponseHeaders(JSON_RESPONSE), Drain()])


@pytest.mark.parametrize(
    ("modes", "head"),
    [
        (STREAMED, SSE_RESPONSE),
        (BUFFERED, JSON_RESPONSE),
        (Modes(BodyMode.STREAMED, BodyMode.BUFFERED, body_without_waiting=True), JSON_RESPONSE),
        (Modes(BodyMode.BUFFERED, BodyMode.STREAMED, body_without_waiting=True), JSON_RESPONSE),
    ],
)
def test_headers_of_other_responses_do_not_wait(connect: Connect, modes: Modes, head: ResponseHead) -> None:
    """Events come one by one, and a gateway that does not send bodies at once would wait for the reply."""
    gateway = connect(modes)
    gateway.send_all(whole(chat()))
    assert [[HEADERS]] == replies(gateway, [ResponseHeaders(head)])
