import json
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.exchange.events import (
    BodyMode,
    Broken,
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
)
from extproc.core.exchange.settings import CloseRule
from extproc.core.facts import RequestHead
from extproc.core.listener import Misconfiguration
from extproc.core.placing.decision import Mode
from extproc.core.placing.policy import Reason
from tests.unit.exchanges import (
    BUFFERED,
    CHAT,
    DUPLEX,
    IN_PIECES,
    MODES,
    PARTIAL,
    ROUTABLE,
    SEQUENCES,
    SSE_RESPONSE,
    STREAMED,
    Connect,
    chat,
    request,
    response,
    usage,
    whole,
)


@pytest.mark.parametrize("modes", ROUTABLE)
@pytest.mark.parametrize(("max_tokens", "pool"), [(50, "short"), (5_000, "long")])
def test_a_request_goes_to_the_first_pool_that_holds_its_budget(
    connect: Connect, modes: Modes, max_tokens: int, pool: str
) -> None:
    """In every mode a small budget is routed to the short pool and a large one stays with the long pool."""
    gateway = connect(modes)
    gateway.send_all(whole(chat(max_tokens=max_tokens)))
    (decision,) = gateway.decisions
    assert (pool, pool == "short") == (decision.pool.name, decision.routed)


@given(places=st.lists(st.integers(0, 10_000), max_size=8), modes=st.sampled_from(IN_PIECES))
@settings(max_examples=60)
def test_the_decision_does_not_depend_on_how_the_body_is_cut(
    connect: Connect, places: list[int], modes: Modes
) -> None:
    """Any chunking of a body leads to the same decision as the body in one piece."""
    body = chat("Grüße, 世界! " * 20)
    gateway, other = connect(modes), connect(modes)
    gateway.send_all(request(body, places))
    other.send_all(whole(body))
    assert other.decisions == gateway.decisions


@given(places=st.lists(st.integers(0, 10_000), max_size=8), modes=st.sampled_from(ROUTABLE))
@settings(max_examples=60)
def test_a_response_teaches_however_it_is_cut(connect: Connect, places: list[int], modes: Modes) -> None:
    """Any chunking of a response is learned from once, with its usage."""
    gateway = connect(modes)
    gateway.send_all([*whole(chat()), *response(usage(), places)])
    (observation,) = gateway.recorder.calls_of("observed")
    assert (5, 7) == (observation.usage.prompt_tokens, observation.usage.completion_tokens)
    assert gateway.closed


@given(
    events=SEQUENCES,
    modes=MODES,
)
@settings(max_examples=300)
def test_no_sequence_of_events_leads_to_a_reply_that_envoy_forbids(
    connect: Connect, events: list[Event], modes: Modes
) -> None:
    """Any possible sequence of events in any mode gets only replies that Envoy accepts, and nothing raises."""
    gateway = connect(modes, max_held_bytes=100_000)
    for event in events:
        if isinstance(event, Deadline) and not gateway.exchange.holding:
            continue
        gateway.send(event)
    gateway.exchange.end()
    assert [] == gateway.recorder.calls_of("failed")
    for phase in Phase:
        assert gateway.sent[phase].startswith(gateway.echoed[phase])


@pytest.mark.parametrize("size", [0, 1, 62 * 1024, 62 * 1024 + 1, 3_000_000])
def test_full_duplex_sends_every_byte_back(connect: Connect, size: int) -> None:
    """In full duplex the request and the response are echoed byte for byte, to their ends."""
    gateway = connect(DUPLEX)
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    gateway.send_all([*request(body, [100, 70_000, 1_000_000]), *response(body, [5, 200_000])])
    gateway.exchange.end()
    assert gateway.sent[Phase.REQUEST] == gateway.echoed[Phase.REQUEST] == body
    assert {Phase.REQUEST} <= gateway.echo_ended


def test_a_released_stream_is_closed_with_the_decision(connect: Connect) -> None:
    """If there is nothing to learn, the decision is the stream's only message, and then the stream is closed."""
    gateway = connect(STREAMED)
    gateway.send_all(request(chat(stream=True)))
    assert gateway.closed
    assert (1, {Phase.REQUEST}) == (len(gateway.decisions), gateway.headers_replied)


@pytest.mark.parametrize("modes", IN_PIECES)
def test_a_body_too_large_for_the_short_pool_is_decided_before_its_end(connect: Connect, modes: Modes) -> None:
    """When 16 bytes per token of the short pool have arrived, the request goes to the long pool."""
    gateway = connect(modes)
    gateway.send(RequestHeaders(CHAT))
    gateway.send(RequestBody(b'{"messages":"' + b"a" * 15_000, end_of_stream=False))
    assert [] == gateway.decisions
    gateway.send(RequestBody(b"a" * 1_000, end_of_stream=False))
    assert [Reason.EARLY] == [decision.reason for decision in gateway.decisions]


def test_the_end_of_an_image_is_awaited(connect: Connect) -> None:
    """Base64 media does not count towards the early decision: the whole body is awaited and counted."""
    gateway = connect(STREAMED)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgoA" + "QUJD" * 30_000}}
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": [image]}], "max_tokens": 5}).encode()
    gateway.send_all(request(body, list(range(0, 120_000, 16_384))))
    assert [Reason.TOO_LONG] == [decision.reason for decision in gateway.decisions]
    assert 1_024 + 5 + 16 >= gateway.decisions[0].budget.total


@pytest.mark.parametrize("modes", IN_PIECES)
def test_a_slow_body_goes_long_at_the_deadline(connect: Connect, modes: Modes) -> None:
    """A held request whose body is late goes to the long pool at the router's deadline, and all of it arrives.

    The stream is closed at once if that loses nothing; in full duplex it stays open for the rest of the body.
    """
    gateway = connect(modes)
    gateway.send(RequestHeaders(CHAT))
    gateway.send(RequestBody(b'{"mod', end_of_stream=False))
    assert gateway.exchange.holding
    gateway.send(Deadline())
    assert (False, modes is not DUPLEX) == (gateway.exchange.holding, gateway.closed)
    assert [Reason.DEADLINE] == [decision.reason for decision in gateway.decisions]
    gateway.send(RequestBody(b'el":"m"}', end_of_stream=True))
    assert gateway.closed


@pytest.mark.parametrize("modes", ROUTABLE)
@pytest.mark.parametrize(
    "head",
    [
        RequestHead("GET", "/v1/models"),
        RequestHead("POST", "/v1/tokenize"),
        RequestHead("GET", "/v1/responses/r_1"),
    ],
)
def test_other_paths_pass_untouched(connect: Connect, modes: Modes, head: Any) -> None:
    """A request to another path gets its reply at once, without a decision."""
    gateway = connect(modes)
    gateway.send(RequestHeaders(head, end_of_stream=True))
    assert gateway.closed
    assert ([], 1) == (gateway.decisions, len(gateway.recorder.calls_of("passed")))


@pytest.mark.parametrize(
    ("modes", "reported"),
    [
        (Modes(BodyMode.STREAMED, BodyMode.STREAMED), Misconfiguration.STREAMED_WITHOUT_FLAG),
        (Modes(BodyMode.NONE, BodyMode.STREAMED), Misconfiguration.NO_REQUEST_BODY),
        (Modes(replies_ignored=True), Misconfiguration.ONLY_OBSERVED),
    ],
)
def test_modes_that_cannot_route_are_reported_and_pass(
    connect: Connect, modes: Modes, reported: Misconfiguration
) -> None:
    """Modes in which no mutation has an effect are reported, and the request passes untouched."""
    gateway = connect(modes)
    gateway.send(RequestHeaders(CHAT))
    assert ([reported], []) == (gateway.recorder.calls_of("misconfigured"), gateway.decisions)
    assert gateway.closed


def test_buffered_partial_is_reported_and_decided_anyway(connect: Connect) -> None:
    """BUFFERED_PARTIAL can only route some bodies: the mode is reported, and bodies that can be routed are."""
    gateway = connect(PARTIAL)
    gateway.send_all(whole(chat()))
    assert [Misconfiguration.BUFFERED_PARTIAL] == gateway.recorder.calls_of("misconfigured")
    assert ["short"] == [decision.pool.name for decision in gateway.decisions]


def test_skipped_headers_are_reported(connect: Connect) -> None:
    """A stream that begins with a body has request_header_mode SKIP: it is reported and passes untouched."""
    gateway = connect(BUFFERED)
    gateway.send(RequestBody(chat(), end_of_stream=True))
    assert [Misconfiguration.NO_REQUEST_HEADERS] == gateway.recorder.calls_of("misconfigured")
    assert ([], True) == (gateway.decisions, gateway.closed)


def test_a_cut_off_body_goes_long(connect: Connect) -> None:
    """The first part of a body over the gateway's buffer limit is not enough for a decision."""
    gateway = connect(PARTIAL)
    gateway.send(RequestHeaders(CHAT))
    gateway.send(RequestBody(chat()[:40], end_of_stream=False))
    assert [(Reason.CUT_OFF, "long")] == [(d.reason, d.pool.name) for d in gateway.decisions]


@pytest.mark.parametrize("modes", ROUTABLE)
def test_an_internal_error_changes_nothing(
    connect: Connect, modes: Modes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception while deciding is reported; the exchange continues as if there were no router."""
    gateway = connect(modes)

    def explode(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(gateway.exchange._router, "decide", explode)
    body = chat()
    gateway.send_all([*whole(body), *response(usage())])
    assert ([], 1) == (gateway.decisions, len(gateway.recorder.calls_of("failed")))
    assert gateway.modes.request_body is not BodyMode.FULL_DUPLEX_STREAMED or gateway.echoed[Phase.REQUEST] == body


def test_trailers_end_a_request_and_a_response(connect: Connect) -> None:
    """Trailers in place of a last empty piece cause the decision and the lesson as well."""
    for modes in IN_PIECES:
        gateway = connect(modes)
        gateway.send(RequestHeaders(CHAT))
        gateway.send(RequestBody(chat(), end_of_stream=False))
        gateway.send(RequestTrailers())
        gateway.send(ResponseHeaders(SSE_RESPONSE))
        gateway.send(ResponseBody(b"data: " + usage() + b"\n\n", end_of_stream=False))
        gateway.send(ResponseTrailers())
        assert (1, 1) == (len(gateway.decisions), len(gateway.recorder.calls_of("observed")))


@pytest.mark.parametrize(("mode", "modes"), list(product([Mode.SHADOW, Mode.OFF], ROUTABLE)))
def test_shadow_decides_without_routing_and_off_does_not_decide(
    connect: Connect, mode: Mode, modes: Modes
) -> None:
    """Mode shadow counts and learns but routes nothing; mode off lets everything pass."""
    gateway = connect(modes, mode=mode)
    gateway.send_all([*whole(chat()), *response(usage())])
    assert not any(decision.routed for decision in gateway.decisions)
    assert (mode is Mode.SHADOW) == bool(gateway.recorder.calls_of("observed"))


@pytest.mark.parametrize("modes", ROUTABLE)
def test_mode_off_reports_nothing_about_a_request(connect: Connect, modes: Modes) -> None:
    """A request in mode off is neither decided nor counted as passed, because the router does not look at it."""
    gateway = connect(modes, mode=Mode.OFF)
    gateway.send_all([*whole(chat()), *response(usage())])
    assert [] == gateway.recorder.calls


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b"\xef\xbb\xbf{}", b"[" * 10_000, chat(max_tokens="many"), chat(max_tokens=-1)],
)
def test_a_body_that_is_not_understood_goes_long(connect: Connect, body: bytes) -> None:
    """Whatever the body is, the request goes to the long pool, with the cause on the decision."""
    gateway = connect(STREAMED)
    gateway.send_all(whole(body))
    (decision,) = gateway.decisions
    assert (Reason.NOT_UNDERSTOOD, "long", True) == (decision.reason, decision.pool.name, gateway.closed)


def test_a_body_in_an_unknown_encoding_goes_long(connect: Connect) -> None:
    """A request body whose content-encoding the router does not decode is not read."""
    gateway = connect(STREAMED)
    gateway.send_all(whole(chat(), RequestHead("POST", "/v1/chat/completions", "compress")))
    assert ["encoded"] == [decision.fault for decision in gateway.decisions]


@given(
    events=SEQUENCES,
    modes=MODES,
    drained_after=st.integers(0, 12),
)
@settings(max_examples=300)
def test_a_gateway_that_treats_a_close_as_an_error_gets_none(
    connect: Connect, events: list[Event], modes: Modes, drained_after: int
) -> None:
    """With `close: never` everything that a gateway can send gets a reply; the gateway ends the stream."""
    gateway = connect(modes, max_held_bytes=100_000, close=CloseRule.NEVER)
    for number, event in enumerate(events):
        if number == drained_after:
            gateway.send(Drain())
        if isinstance(event, Deadline) and not gateway.exchange.holding:
            continue
        gateway.send(event)
    assert not gateway.closed
    assert [] == gateway.recorder.calls_of("failed")


@pytest.mark.parametrize("modes", ROUTABLE)
def test_without_a_close_requests_are_placed_and_learned_from_as_usual(connect: Connect, modes: Modes) -> None:
    """The decision goes out with the same reply, and the response teaches when the gateway ends the stream."""
    gateway = connect(modes, close=CloseRule.NEVER)
    gateway.send_all([*whole(chat()), *response(usage())])
    assert ["short"] == [decision.pool.name for decision in gateway.decisions]
    assert not gateway.closed
    gateway.exchange.end()
    assert 1 == len(gateway.recorder.calls_of("observed"))


@pytest.mark.parametrize("modes", ROUTABLE)
def test_a_message_that_cannot_be_read_ends_a_stream_in_any_case(connect: Connect, modes: Modes) -> None:
    """Such a message cannot get a reply: the stream is closed, or aborted if bytes are lost."""
    gateway = connect(modes, close=CloseRule.NEVER)
    gateway.send(RequestHeaders(CHAT))
    gateway.send(Broken(ValueError("no message")))
    assert gateway.closed
