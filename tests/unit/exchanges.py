"""Requests and responses as the events that a gateway sends, and the modes in which it sends them."""

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from extproc.core.exchange.events import (
    BodyMode,
    Deadline,
    Drain,
    Event,
    Modes,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    Shed,
)
from extproc.core.facts import RequestHead, ResponseHead

# The type of conftest.py's fixture, which opens one exchange in the given modes with a new router.
Connect = Callable[..., Any]
CHAT = RequestHead("POST", "/v1/chat/completions")
JSON_RESPONSE = ResponseHead(200, "application/json")
SSE_RESPONSE = ResponseHead(200, "text/event-stream")
STREAMED = Modes(BodyMode.STREAMED, BodyMode.STREAMED, body_without_waiting=True)
BUFFERED = Modes(BodyMode.BUFFERED, BodyMode.STREAMED)
PARTIAL = Modes(BodyMode.BUFFERED_PARTIAL, BodyMode.STREAMED)
DUPLEX = Modes(BodyMode.FULL_DUPLEX_STREAMED, BodyMode.FULL_DUPLEX_STREAMED)
ROUTABLE = [STREAMED, BUFFERED, PARTIAL, DUPLEX]
IN_PIECES = [STREAMED, DUPLEX]


def chat(content: str = "How are you?", **fields: Any) -> bytes:
    """Return a chat request's body."""
    return json.dumps(
        {"model": "m", "messages": [{"role": "user", "content": content}], "max_tokens": 50, **fields}
    ).encode()


def usage(prompt_tokens: int = 5, completion_tokens: int = 7) -> bytes:
    """Return a chat response's body."""
    return json.dumps(
        {
            "object": "chat.completion",
            "choices": [{"index": 0, "message": {"content": "Fine."}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens},
        }
    ).encode()


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut data at the places (modulo its length + 1)."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(edges)]


def request(body: bytes, places: list[int] | None = None, head: RequestHead = CHAT) -> list[Event]:
    """Return the events of a request with its body cut at the places; like Envoy, end it with an empty piece."""
    pieces = [RequestBody(piece, end_of_stream=False) for piece in cut(body, places or [])]
    return [RequestHeaders(head), *pieces, RequestBody(b"", end_of_stream=True)]


def whole(body: bytes, head: RequestHead = CHAT) -> list[Event]:
    """Return the events of a request whose body comes in one message."""
    return [RequestHeaders(head), RequestBody(body, end_of_stream=True)]


def response(body: bytes, places: list[int] | None = None, head: ResponseHead = JSON_RESPONSE) -> list[Event]:
    """Return the events of a response."""
    pieces = [ResponseBody(piece, end_of_stream=False) for piece in cut(body, places or [])]
    return [ResponseHeaders(head), *pieces, ResponseBody(b"", end_of_stream=True)]


EVENTS = st.one_of(
    st.builds(RequestHeaders, st.just(CHAT) | st.builds(RequestHead, st.text(), st.text()), st.booleans()),
    st.builds(RequestBody, st.sampled_from([chat(), b"{", b"", b"x" * 70_000]) | st.binary(), st.booleans()),
    st.builds(RequestTrailers),
    st.builds(ResponseHeaders, st.builds(ResponseHead, st.integers(0, 999), st.text(), st.text())),
    st.builds(ResponseHeaders, st.sampled_from([JSON_RESPONSE, SSE_RESPONSE]), st.booleans()),
    st.builds(ResponseBody, st.just(usage()) | st.binary(), st.booleans()),
    st.builds(ResponseTrailers),
    st.builds(Deadline),
)


def in_a_possible_order(events: list[Event]) -> list[Event]:
    """Keep the events that a gateway could send: headers once and first in each phase, nothing after its end."""
    kept: list[Event] = []
    begun: set[str] = set()
    ended: set[str] = set()
    for event in events:
        phase, kind = type(event).__name__[:7], type(event).__name__
        if isinstance(event, Deadline):
            kept.append(event)
        elif phase not in ended and ("Headers" in kind) == (phase not in begun):
            begun.add(phase)
            kept.append(event)
            if "Trailers" in kind or getattr(event, "end_of_stream", False):
                ended.add(phase)
    return kept


MODES = st.sampled_from(ROUTABLE) | st.builds(
    Modes, st.sampled_from(BodyMode), st.sampled_from(BodyMode), st.booleans()
)


@st.composite
def exchanges(draw: st.DrawFn) -> list[Event]:
    """Draw a gateway's exchange: any bodies in any pieces, ended in any way, or broken off."""
    body = draw(st.sampled_from([chat(), chat(stream=True), chat("word " * 30_000), b"{", b""]))
    places = st.lists(st.integers(0, 200_000), max_size=3)
    ends: list[Event] = [RequestBody(b"", end_of_stream=True), RequestTrailers()]
    pieces: list[Event] = [RequestBody(piece, end_of_stream=False) for piece in cut(body, draw(places))]
    asked: list[Event] = [RequestHeaders(CHAT), *pieces, draw(st.sampled_from(ends))]
    head = ResponseHead(
        draw(st.sampled_from([200, 200, 400, 503])), "application/json", "", draw(st.integers(1, 2))
    )
    content = draw(st.sampled_from([usage(), usage(0), b"{", b"", b"x" * 70_000]))
    lasts: list[Event] = [ResponseBody(content, end_of_stream=True), ResponseTrailers()]
    responded = [*response(content, draw(places), head)[:-1], draw(st.sampled_from(lasts))]
    events = [*(whole(body) if draw(st.booleans()) else asked), *responded]
    others: list[Event] = [Deadline(), Drain(), Shed()]
    for event in draw(st.lists(st.sampled_from(others), max_size=2)):
        events.insert(draw(st.integers(1, len(events))), event)
    return events[: draw(st.integers(1, len(events) + 20))]


# What a gateway could send: mostly whole exchanges, and any events in any possible order.
SEQUENCES = exchanges() | st.lists(EVENTS, max_size=12).map(in_a_possible_order)
