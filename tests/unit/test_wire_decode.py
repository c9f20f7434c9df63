"""Decoding of the gateway's messages, which raises nothing but UnknownMessage, however odd they are."""

import contextlib
from typing import Any

import pytest
from envoy.config.core.v3.base_pb2 import HeaderMap, HeaderValue
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    HttpBody,
    HttpHeaders,
    HttpTrailers,
    ProcessingRequest,
    ProcessingResponse,
    ProtocolConfiguration,
)
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.exchange.events import (
    BodyMode,
    Close,
    Event,
    Modes,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
)
from extproc.core.exchange.machine import Exchange
from extproc.core.facts import RequestHead, ResponseHead
from extproc.core.headers import HeaderNames
from extproc.wire.decode import Decoder, UnknownMessage
from extproc.wire.encode import Encoder

Connect = Any


def headers(*pairs: tuple[str, str]) -> HttpHeaders:
    """Return a headers message with these pairs, in `raw_value`."""
    values = [HeaderValue(key=key, raw_value=value.encode()) for key, value in pairs]
    return HttpHeaders(headers=HeaderMap(headers=values))


def response(*pairs: tuple[str, str]) -> ResponseHead:
    """Return a response's headers as decoded."""
    event = Decoder().next(ProcessingRequest(response_headers=headers(*pairs)).SerializeToString())
    assert isinstance(event, ResponseHeaders)
    return event.head


@pytest.mark.parametrize("count", ["9" * 5_000, "9" * 10, "", "-1", "1.5", "two", "\u0663"])
def test_an_invalid_number_is_ignored(count: str) -> None:
    """An attempt count with thousands of digits, or without any, is read as one attempt."""
    assert 1 == response((":status", "200"), ("x-envoy-attempt-count", count)).attempts
    assert 0 == response((":status", count)).status


def test_a_number_is_read() -> None:
    """Status and attempts are numbers."""
    head = response((":status", "503"), ("x-envoy-attempt-count", "2"))
    assert (503, 2) == (head.status, head.attempts)


def test_a_first_message_without_protocol_config_is_taken_as_buffered() -> None:
    """A gateway that does not announce its modes gets no reply that would be too early in any mode."""
    modes, event = Decoder().first(
        ProcessingRequest(request_headers=headers((":method", "GET"))).SerializeToString()
    )
    assert Modes(BodyMode.BUFFERED, BodyMode.BUFFERED, body_without_waiting=False) == modes
    assert RequestHeaders(RequestHead(method="GET")) == event


@pytest.mark.parametrize("announces", [False, True])
def test_observability_mode_is_read_from_the_first_message(*, announces: bool) -> None:
    """A gateway that ignores replies says so in each message, whether or not it announces its modes."""
    message = ProcessingRequest(request_headers=headers((":method", "GET")), observability_mode=True)
    if announces:
        message.protocol_config.request_body_mode = BodyMode.BUFFERED
    modes, _ = Decoder().first(message.SerializeToString())
    assert modes.replies_ignored


def test_value_is_read_if_raw_value_is_empty() -> None:
    """Older gateways send header values as text."""
    message = ProcessingRequest()
    message.request_headers.headers.headers.add(key=":path", value="/v1/a")
    message.request_headers.headers.headers.add(key=":method", value="old", raw_value=b"POST")
    assert RequestHeaders(RequestHead(method="POST", path="/v1/a")) == Decoder().next(message.SerializeToString())


@pytest.mark.parametrize(("clock_ns", "read"), [(None, ("", 0)), (lambda: 7, ("00-trace-span-01", 7))])
def test_only_traces_need_traceparent_and_the_time(clock_ns: Any, read: tuple[str, int]) -> None:
    """With a clock, a request's head has its `traceparent` and its time of arrival; without one, neither."""
    pairs = (":method", "GET"), ("traceparent", "00-trace-span-01")
    message = ProcessingRequest(request_headers=headers(*pairs)).SerializeToString()
    event = Decoder(clock_ns=clock_ns).next(message)
    assert isinstance(event, RequestHeaders)
    assert ("GET", *read) == (event.head.method, event.head.traceparent, event.head.arrived_ns)


@pytest.mark.parametrize(
    ("message", "event"),
    [
        (
            ProcessingRequest(request_body=HttpBody(body=b"ab", end_of_stream=True)),
            RequestBody(b"ab", end_of_stream=True),
        ),
        (ProcessingRequest(response_body=HttpBody(body=b"cd")), ResponseBody(b"cd", end_of_stream=False)),
        (ProcessingRequest(request_trailers=HttpTrailers()), RequestTrailers()),
        (ProcessingRequest(response_trailers=HttpTrailers()), ResponseTrailers()),
    ],
)
def test_bodies_and_trailers_are_read_wherever_they_stand(message: ProcessingRequest, event: Event) -> None:
    """A gateway that skips the headers begins a stream with any other part."""
    decoder = Decoder()
    assert event == decoder.next(message.SerializeToString()) == decoder.first(message.SerializeToString())[1]


@pytest.mark.parametrize(
    ("message", "said"),
    [(b"\xff\xff\xff", "^3 bytes that are not a ProcessingRequest: "), (b"", "^ProcessingRequest of kind None$")],
)
def test_other_bytes_and_messages_without_a_part_are_unknown(message: bytes, said: str) -> None:
    """Both are refused, whether a stream begins with them or not, with words that say what they are."""
    for decode in (Decoder().first, Decoder().next):
        with pytest.raises(UnknownMessage, match=said):
            decode(message)


def test_the_tenant_is_read_from_the_configured_header() -> None:
    """Without such a header in the configuration, requests have no tenant."""
    message = ProcessingRequest(request_headers=headers(("x-tenant", "blue"))).SerializeToString()
    heads = [Decoder(*header).next(message) for header in (("x-tenant",), ())]
    assert [RequestHeaders(RequestHead(tenant=tenant)) for tenant in ("blue", "")] == heads


ASKED = (":method", "POST"), (":path", "/v1/chat/completions")
RESPONDED = (":status", "200"), ("content-type", "application/json")
PAIRS = [
    *(*ASKED, *RESPONDED, (":path", "/v1/responses"), (":status", "400"), ("content-type", "text/event-stream")),
    *(("content-encoding", "gzip"), ("content-encoding", "br"), ("content-encoding", "identity")),
    *(("x-envoy-attempt-count", "2"), ("x-envoy-attempt-count", "9" * 5_000), ("x-tenant", "t")),
]
BODIES = [
    b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"max_tokens":5}',
    b'{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}]}',
    b'{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":4,"completion_tokens":3}}',
    b'data: {"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":3}}\n\ndata: [DONE]\n\n',
    b'{"error":{"message":"maximum context length is 8 tokens, you requested 9"}}',
]
VALUES = st.builds(
    HeaderValue, key=st.text(max_size=5), value=st.text(max_size=5), raw_value=st.binary(max_size=9)
)
MAPS = (
    st.sampled_from([headers(*ASKED).headers, headers(*RESPONDED).headers])
    | st.lists(st.sampled_from(PAIRS), max_size=6).map(lambda pairs: headers(*pairs).headers)
    | st.builds(HeaderMap, headers=st.lists(VALUES, max_size=6))
)
HEADERS = st.builds(HttpHeaders, headers=MAPS, end_of_stream=st.booleans())
PIECES = st.builds(HttpBody, body=st.sampled_from(BODIES) | st.binary(max_size=99), end_of_stream=st.booleans())
TRAILERS = st.builds(HttpTrailers, trailers=MAPS)
# A newer gateway may send numbers of unknown modes.
CONFIGS = st.none() | st.builds(
    ProtocolConfiguration,
    request_body_mode=st.integers(0, 6),
    response_body_mode=st.integers(0, 6),
    send_body_without_waiting_for_header_response=st.booleans(),
)
KINDS = [("headers", HEADERS), ("body", PIECES), ("trailers", TRAILERS)]
PARTS: st.SearchStrategy[dict[str, Any]] = st.just({}) | st.one_of(
    [st.fixed_dictionaries({f"{side}_{kind}": part}) for side in ("request", "response") for kind, part in KINDS]
)
MESSAGES = st.builds(lambda part, config: ProcessingRequest(protocol_config=config, **part), PARTS, CONFIGS)


ANY = st.binary(max_size=200) | MESSAGES.map(ProcessingRequest.SerializeToString)


def exchanged(connect: Connect, messages: list[bytes]) -> Any:
    """Pass messages through decoding, exchange and encoding as a stream does; return the recording listener."""
    router = connect(Modes())
    decoder, encoder = Decoder("x-tenant"), Encoder(HeaderNames())
    exchange = None
    for message in messages:
        with contextlib.suppress(UnknownMessage):
            if exchange is None:
                modes, event = decoder.first(message)
                exchange = Exchange(router.exchange._router, modes)
            else:
                event = decoder.next(message)
            for action in exchange.handle(event, 0.0):
                if not isinstance(action, Close):
                    ProcessingResponse.FromString(encoder.encode(action))
    return router.recorder


@given(messages=st.lists(ANY, max_size=12))
def test_no_message_raises_anything_but_unknown_message(connect: Connect, messages: list[bytes]) -> None:
    """Any bytes in any order are decoded or unknown, and the resulting
    events are handled and the replies encoded.
    """
    assert [] == exchanged(connect, messages).calls_of("failed")


@given(
    config=CONFIGS,
    bodies=st.tuples(st.sampled_from(BODIES), st.sampled_from(BODIES)),
    heads=st.tuples(MAPS, MAPS),
    odd=st.dictionaries(st.integers(0, 3), ANY, max_size=1),
)
def test_no_message_within_an_exchange_raises(
    connect: Connect,
    config: ProtocolConfiguration | None,
    bodies: tuple[bytes, bytes],
    heads: tuple[HeaderMap, HeaderMap],
    odd: dict[int, bytes],
) -> None:
    """The same holds for exchanges that are decided and learned from, with one message out of place."""
    asked, answered = headers(*ASKED), headers(*RESPONDED)
    for message, more in zip((asked, answered), heads, strict=True):
        message.headers.MergeFrom(more)
    expected = [
        ProcessingRequest(request_headers=asked, protocol_config=config),
        ProcessingRequest(request_body=HttpBody(body=bodies[0], end_of_stream=True)),
        ProcessingRequest(response_headers=answered),
        ProcessingRequest(response_body=HttpBody(body=bodies[1], end_of_stream=True)),
    ]
    messages = [[*([odd[at]] if at in odd else []), good.SerializeToString()] for at, good in enumerate(expected)]
    assert [] == exchanged(connect, [message for pair in messages for message in pair]).calls_of("failed")
