"""Requests and responses as the events that a gateway sends, and the modes it sends them in."""

import json
from itertools import pairwise
from typing import Any

from extproc.core.exchange.events import (
    BodyMode,
    Event,
    Modes,
    RequestBody,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
)
from extproc.core.facts import RequestHead, ResponseHead

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
    """Cut data at the places (taken modulo its length)."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(edges)]


def request(body: bytes, places: list[int] | None = None, head: RequestHead = CHAT) -> list[Event]:
    """Return the events of a request whose body is cut at the places, ended as Envoy does, by an empty piece."""
    pieces = [RequestBody(piece, end_of_stream=False) for piece in cut(body, places or [])]
    return [RequestHeaders(head), *pieces, RequestBody(b"", end_of_stream=True)]


def whole(body: bytes, head: RequestHead = CHAT) -> list[Event]:
    """Return the events of a request whose body comes in one message."""
    return [RequestHeaders(head), RequestBody(body, end_of_stream=True)]


def response(body: bytes, places: list[int] | None = None, head: ResponseHead = JSON_RESPONSE) -> list[Event]:
    """Return the events of a response."""
    pieces = [ResponseBody(piece, end_of_stream=False) for piece in cut(body, places or [])]
    return [ResponseHeaders(head), *pieces, ResponseBody(b"", end_of_stream=True)]
