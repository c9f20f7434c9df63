"""Exchanges that end early: the router drains, a message cannot be read, or a reply cannot be written."""

import pytest

from extproc.core.exchange.events import (
    BodyMode,
    Broken,
    Close,
    ContinueBody,
    ContinueHeaders,
    Deadline,
    Drain,
    Event,
    Modes,
    Phase,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    Shed,
)
from extproc.core.exchange.replies import DuplexBodies
from extproc.core.exchange.settings import CloseRule
from extproc.core.facts import RequestHead, ResponseHead
from extproc.core.placing.policy import Reason
from tests.unit.exchanges import (
    BUFFERED,
    CHAT,
    DUPLEX,
    IN_PIECES,
    JSON_RESPONSE,
    ROUTABLE,
    STREAMED,
    Connect,
    chat,
    response,
    usage,
    whole,
)

BROKEN = Broken(ValueError("no message"))
UNSENT = Broken(ValueError("no reply"), unsent=True)
ASKED_DUPLEX = Modes(BodyMode.FULL_DUPLEX_STREAMED, BodyMode.STREAMED)
RESPONSE_DUPLEX = Modes(BodyMode.STREAMED, BodyMode.FULL_DUPLEX_STREAMED, body_without_waiting=True)
HEADERS = RequestHeaders(CHAT)
PIECE, LAST = RequestBody(b"{", end_of_stream=False), RequestBody(b"", end_of_stream=True)


@pytest.mark.parametrize("modes", ROUTABLE)
def test_an_exchange_that_has_not_begun_ends_at_a_drain(connect: Connect, modes: Modes) -> None:
    """Nothing is held and nothing is in flight."""
    gateway = connect(modes)
    assert not gateway.exchange.holding
    gateway.send(Drain())
    assert gateway.closed


@pytest.mark.parametrize("modes", IN_PIECES)
def test_a_request_that_begins_in_a_drain_is_still_placed(connect: Connect, modes: Modes) -> None:
    """A draining router still places new requests, but learns nothing more."""
    exchange = connect(modes).exchange
    exchange.handle(Drain(), 0.0)
    assert () == exchange.handle(HEADERS, 0.0)
    decided, *_, last = exchange.handle(RequestBody(chat(), end_of_stream=True), 0.0)
    assert isinstance(decided, ContinueHeaders)
    assert decided.decision is not None
    assert Close() == last


def test_a_body_that_cannot_be_held_is_not_awaited_in_a_drain(connect: Connect) -> None:
    """In BUFFERED the headers pass at once, so the stream could only wait for the body."""
    exchange = connect(BUFFERED).exchange
    exchange.handle(Drain(), 0.0)
    assert [Close()] == exchange.handle(HEADERS, 0.0)


@pytest.mark.parametrize("modes", IN_PIECES)
def test_the_body_of_a_held_request_is_awaited_in_a_drain(connect: Connect, modes: Modes) -> None:
    """The stream stays open until its body, or its deadline, has come."""
    gateway = connect(modes)
    gateway.send_all((HEADERS, PIECE, Drain()))
    assert (False, True, True) == (gateway.closed, gateway.exchange.holding, gateway.exchange.undecided)
    gateway.send(Deadline())
    assert [Reason.DEADLINE] == [decision.reason for decision in gateway.decisions]
    assert (modes is STREAMED, False) == (gateway.closed, gateway.exchange.undecided)
    gateway.send(LAST)
    assert gateway.closed


@pytest.mark.parametrize("modes", ROUTABLE)
def test_a_response_is_not_awaited_in_a_drain(connect: Connect, modes: Modes) -> None:
    """A kept stream ends at once: its lesson is not worth the wait."""
    gateway = connect(modes)
    gateway.send_all(whole(chat()))
    assert not gateway.closed
    assert not gateway.exchange.undecided
    gateway.send(Drain())
    assert gateway.closed


def test_a_full_duplex_response_is_completed_in_a_drain(connect: Connect) -> None:
    """If a body has begun, every byte of it is sent back first."""
    gateway = connect(DUPLEX)
    gateway.send_all([*whole(chat()), *response(usage(), [9])[:2], Drain()])
    assert not gateway.closed
    gateway.send_all(response(usage(), [9])[2:])
    assert gateway.closed
    assert gateway.sent[Phase.RESPONSE] == gateway.echoed[Phase.RESPONSE] == usage()


@pytest.mark.parametrize("modes", [STREAMED, BUFFERED])
@pytest.mark.parametrize("broken", [BROKEN, UNSENT])
def test_a_broken_message_is_a_failure_and_closes(connect: Connect, modes: Modes, broken: Broken) -> None:
    """It is reported once; the close serves as the reply to everything that was sent."""
    gateway = connect(modes)
    gateway.send(HEADERS)
    gateway.send(broken)
    assert [broken.error] == gateway.recorder.calls_of("failed")
    assert (True, False, False) == (gateway.closed, gateway.aborted, gateway.exchange.holding)


@pytest.mark.parametrize(
    ("modes", "events", "broken", "aborted"),
    [
        (ASKED_DUPLEX, [HEADERS], BROKEN, True),
        (ASKED_DUPLEX, [HEADERS, PIECE], BROKEN, True),
        (ASKED_DUPLEX, whole(chat()), BROKEN, False),  # the body was echoed; BROKEN may be response headers
        (ASKED_DUPLEX, whole(chat()), UNSENT, True),  # the end of the body was not echoed
        (ASKED_DUPLEX, [*whole(chat()), ResponseHeaders(JSON_RESPONSE)], UNSENT, False),
        (RESPONSE_DUPLEX, [HEADERS], BROKEN, True),  # BROKEN may be the first message of a response
        (RESPONSE_DUPLEX, whole(chat()), BROKEN, True),
        (RESPONSE_DUPLEX, [*whole(chat()), ResponseHeaders(JSON_RESPONSE)], BROKEN, True),
        (RESPONSE_DUPLEX, [*whole(chat()), ResponseHeaders(JSON_RESPONSE)], UNSENT, True),
    ],
)
def test_a_broken_full_duplex_body_aborts_the_stream(
    connect: Connect, modes: Modes, events: list[Event], broken: Broken, *, aborted: bool
) -> None:
    """If bytes are lost, and only then, the stream is aborted."""
    gateway = connect(modes)
    gateway.send_all(events)
    assert not gateway.closed
    gateway.send(broken)
    assert (True, aborted) == (gateway.closed, gateway.aborted)


@pytest.mark.parametrize(
    ("modes", "events", "in_flight"),
    [
        (DUPLEX, [], False),
        (DUPLEX, [HEADERS], True),
        (DUPLEX, [RequestHeaders(CHAT, end_of_stream=True)], False),
        (DUPLEX, [HEADERS, PIECE], True),
        (DUPLEX, [HEADERS, PIECE, LAST], False),
        (DUPLEX, [HEADERS, LAST, ResponseHeaders(JSON_RESPONSE)], True),
        (DUPLEX, [HEADERS, LAST, ResponseHeaders(JSON_RESPONSE, end_of_stream=True)], False),
        (DUPLEX, [ResponseHeaders(JSON_RESPONSE), ResponseBody(b"x", end_of_stream=False)], True),
        (DUPLEX, [ResponseHeaders(JSON_RESPONSE), ResponseBody(b"x", end_of_stream=True)], False),
        (DUPLEX, [ResponseHeaders(JSON_RESPONSE), ResponseTrailers()], False),
        (DUPLEX, [HEADERS, ResponseHeaders(JSON_RESPONSE), LAST], True),
        (DUPLEX, [HEADERS, ResponseHeaders(JSON_RESPONSE), ResponseBody(b"", end_of_stream=True)], True),
        (ASKED_DUPLEX, [HEADERS], True),
        (ASKED_DUPLEX, [HEADERS, LAST, ResponseHeaders(JSON_RESPONSE)], False),
        (RESPONSE_DUPLEX, [HEADERS, PIECE], False),
        (RESPONSE_DUPLEX, [HEADERS, LAST, ResponseHeaders(JSON_RESPONSE)], True),
    ],
)
def test_a_full_duplex_body_is_in_flight_until_its_end(
    modes: Modes, events: list[Event], *, in_flight: bool
) -> None:
    """It lasts from the headers of a direction to its last piece or trailers; in other modes nothing is lost."""
    bodies = DuplexBodies(modes)
    for event in events:
        bodies.observe(event)
    assert in_flight == bodies.under_way


def test_a_full_duplex_response_that_teaches_nothing_is_echoed_to_its_end(connect: Connect) -> None:
    """After a status that teaches nothing, the stream stays open until the last piece has passed."""
    gateway = connect(DUPLEX)
    gateway.send_all([*whole(chat()), ResponseHeaders(ResponseHead(500, "text/plain"))])
    gateway.send(ResponseBody(b"out of ", end_of_stream=False))
    assert not gateway.closed
    gateway.send(ResponseBody(b"memory", end_of_stream=True))
    assert gateway.closed
    assert b"out of memory" == gateway.echoed[Phase.RESPONSE]


@pytest.mark.parametrize("modes", ROUTABLE)
def test_a_request_without_a_body_is_not_placed(connect: Connect, modes: Modes) -> None:
    """A POST that ends with its headers is counted as passed, and is sent on."""
    gateway = connect(modes)
    gateway.send(RequestHeaders(CHAT, end_of_stream=True))
    assert (1, []) == (len(gateway.recorder.calls_of("passed")), gateway.recorder.calls_of("decided"))
    assert gateway.closed


@pytest.mark.parametrize("modes", IN_PIECES)
def test_decisions_before_the_end_of_a_body_are_counted(connect: Connect, modes: Modes) -> None:
    """Decisions at a deadline, or about a body that is too large, are counted like all others."""
    for event in (Deadline(), RequestBody(b"x" * 20_000, end_of_stream=False)):
        gateway = connect(modes)
        gateway.send(HEADERS)
        gateway.send(event)
        assert 1 == len(gateway.decisions)
        assert gateway.decisions == gateway.recorder.calls_of("decided") == gateway.recorder.calls_of("released")


@pytest.mark.parametrize("modes", ROUTABLE)
def test_a_request_that_is_shed_goes_to_the_default_pool(connect: Connect, modes: Modes) -> None:
    """A router that cannot keep up sends on what it holds at once, and otherwise closes the stream."""
    gateway = connect(modes)
    gateway.send(HEADERS)
    gateway.send(Shed())
    assert [Reason.SHED] == [decision.reason for decision in gateway.recorder.calls_of("decided")]
    assert (modes is not DUPLEX, False) == (gateway.closed, gateway.exchange.undecided)


def test_a_close_replaces_every_reply_but_the_one_with_the_decision(connect: Connect) -> None:
    """The gateway gets no reply that only says what it would do anyway."""
    exchange = connect(STREAMED).exchange
    assert [Close()] == list(exchange.handle(RequestHeaders(RequestHead("GET", "/v1/models")), 0.0))
    exchange = connect(STREAMED).exchange
    exchange.handle(HEADERS, 0.0)
    exchange.handle(RequestBody(chat(stream=True), end_of_stream=False), 0.0)
    replies = exchange.handle(RequestTrailers(), 0.0)
    assert [ContinueHeaders, Close] == list(map(type, replies))
    exchange = connect(BUFFERED).exchange
    exchange.handle(HEADERS, 0.0)
    replies = exchange.handle(RequestBody(chat(stream=True), end_of_stream=True), 0.0)
    assert [ContinueBody, Close] == list(map(type, replies))
    exchange = connect(BUFFERED).exchange
    exchange.handle(HEADERS, 0.0)
    assert [Close()] == list(exchange.handle(RequestTrailers(), 0.0))


@pytest.mark.parametrize("modes", ROUTABLE)
def test_without_a_close_everything_held_gets_a_reply(connect: Connect, modes: Modes) -> None:
    """If streams are not closed, a released request whose body came in pieces gets a reply to each piece."""
    gateway = connect(modes, close=CloseRule.NEVER)
    gateway.send(HEADERS)
    gateway.send(RequestBody(chat(stream=True), end_of_stream=modes not in IN_PIECES))
    if modes in IN_PIECES:
        gateway.send(LAST)
    assert (1, [], False) == (len(gateway.decisions), gateway.owed(Phase.REQUEST), gateway.closed)


def test_trailers_pass_after_an_internal_error(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in a decision that trailers cause holds back neither the body nor the trailers."""
    gateway = connect(DUPLEX)

    def explode(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(gateway.exchange._router, "decide", explode)
    gateway.send(HEADERS)
    gateway.send(RequestBody(chat(), end_of_stream=False))
    gateway.send(RequestTrailers())
    assert (chat(), []) == (gateway.echoed[Phase.REQUEST], gateway.owed(Phase.REQUEST))
