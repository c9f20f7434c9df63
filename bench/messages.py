"""The messages of one exchange as Envoy sends them in STREAMED mode, to measure servers without Envoy.

Their shape was observed on Envoy 1.40. The body of an HTTP/1.1 client arrives in pieces, followed by an empty
message that ends it. The first piece is what was read together with the headers, at most 16 KiB; the size of later
pieces depends on the sender's speed, up to the buffer limit of 1 MiB. The body of an HTTP/2 client arrives frame
by frame, and its last frame ends it. The response of a pool, over HTTP/1.1, also ends with an empty message.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from envoy.service.ext_proc.v3.external_processor_pb2 import HttpBody, HttpHeaders, ProcessingRequest

from extproc.core.exchange.events import ContinueHeaders, Phase
from extproc.core.facts import Api
from extproc.core.headers import HeaderNames
from extproc.core.placing.budget import TokenBudget
from extproc.core.placing.decision import Decision, Mode
from extproc.core.placing.policy import Pool, Reason
from extproc.documents import read_document
from extproc.wire.encode import Encoder

__all__ = [
    "SERVICE",
    "chat_body",
    "chat_response",
    "decision_reply",
    "frames",
    "http1_pieces",
    "http2_pieces",
    "request",
    "response",
]

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
TEXT = "The router reads the request body that the gateway streams to it and decides by its token budget. "
FIRST_PIECE_BYTES = 16 << 10
LARGEST_PIECE_BYTES = 1 << 20
CONFIGURATION = Path(__file__).parents[1] / "envoy" / "streamed.yaml"

# The headers that the openai client sends and Envoy adds; Envoy's forward_rules select those that reach the
# router.
REQUEST_HEADERS = {
    ":authority": "gateway.example",
    ":path": "/v1/chat/completions",
    ":method": "POST",
    ":scheme": "http",
    "accept": "application/json",
    "accept-encoding": "gzip, deflate",
    "authorization": "Bearer none",
    "content-length": "1982",
    "content-type": "application/json",
    "user-agent": "AsyncOpenAI/Python 2.0.0",
    "x-stainless-arch": "x64",
    "x-stainless-async": "async:asyncio",
    "x-stainless-lang": "python",
    "x-stainless-os": "Linux",
    "x-stainless-package-version": "2.0.0",
    "x-stainless-retry-count": "0",
    "x-stainless-runtime": "CPython",
    "x-stainless-runtime-version": "3.11.7",
    "x-forwarded-for": "192.0.2.2",
    "x-forwarded-proto": "http",
    "x-envoy-external-address": "192.0.2.2",
    "x-request-id": "6b1c2b86-7d2f-4f5e-9d3a-0a7f0b7ad2c1",
}
RESPONSE_HEADERS = {
    ":status": "200",
    "content-type": "application/json",
    "content-length": "956",
    "date": "Mon, 02 Jun 2025 10:00:00 GMT",
    "server": "uvicorn",
    "x-envoy-upstream-service-time": "20",
    "x-envoy-attempt-count": "1",
}


def chat_body(
    body_bytes: int, *, stream: bool = False, include_usage: bool = False, model: str = "bench"
) -> bytes:
    """Return a chat request of about `body_bytes` bytes of English.

    The router cannot learn from the response to one with `stream` but without `include_usage`.
    """
    text = (TEXT * (body_bytes // len(TEXT) + 1))[: max(body_bytes - 150, 10)]
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 256, "stream": stream}
    if include_usage:
        body["stream_options"] = {"include_usage": True}
    return json.dumps(body).encode()


def chat_response(body_bytes: int = 1024) -> bytes:
    """Return a JSON response of about `body_bytes` bytes, with usage."""
    message = {"role": "assistant", "content": (TEXT * (1 + body_bytes // len(TEXT)))[: body_bytes - 330]}
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "bench",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 420, "completion_tokens": 160, "total_tokens": 580},
        }
    ).encode()


def http1_pieces(body: bytes) -> list[bytes]:
    """Split a body as Envoy does for a fast HTTP/1.1 client; the last piece is empty."""
    rest = range(FIRST_PIECE_BYTES, len(body), LARGEST_PIECE_BYTES)
    return [body[:FIRST_PIECE_BYTES], *(body[at : at + LARGEST_PIECE_BYTES] for at in rest), b""]


def http2_pieces(body: bytes) -> list[bytes]:
    """Split a body into frames of HTTP/2's default size."""
    return [body[at : at + FIRST_PIECE_BYTES] for at in range(0, len(body), FIRST_PIECE_BYTES)]


def request(pieces: Sequence[bytes], headers: Mapping[str, str] | None = None) -> list[bytes]:
    """Return the messages of a request: headers (a chat request's, overridden by `headers`) and body."""
    head = ProcessingRequest(request_headers=_headers(REQUEST_HEADERS | dict(headers or {})))
    head.protocol_config.request_body_mode = ProcessingMode.STREAMED
    head.protocol_config.response_body_mode = ProcessingMode.STREAMED
    head.protocol_config.send_body_without_waiting_for_header_response = True
    bodies = [
        ProcessingRequest(request_body=HttpBody(body=piece, end_of_stream=number == len(pieces)))
        for number, piece in enumerate(pieces, 1)
    ]
    return [_bytes(message) for message in (head, *bodies)]


def response(response: bytes, headers: Mapping[str, str] | None = None) -> list[bytes]:
    """Return the messages of a pool's response."""
    head = ProcessingRequest(response_headers=_headers(RESPONSE_HEADERS | dict(headers or {})))
    bodies = [
        ProcessingRequest(response_body=HttpBody(body=response)),
        ProcessingRequest(response_body=HttpBody(end_of_stream=True)),
    ]
    return [_bytes(message) for message in (head, *bodies)]


def frames(messages: Sequence[bytes]) -> bytes:
    """Return messages in gRPC framing: each is preceded by a flag and its length."""
    return b"".join(struct.pack(">BI", 0, len(message)) + message for message in messages)


def decision_reply() -> bytes:
    """Return a router's reply to a short request."""
    decision = Decision(
        Pool("short", 8192),
        Reason.FITS,
        Mode.ENFORCE,
        routed=True,
        api=Api.CHAT,
        budget=TokenBudget(9, 9, 9, 1, 9),
    )
    return Encoder(HeaderNames()).encode(ContinueHeaders(Phase.REQUEST, decision))


def _forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that Envoy's configuration forwards to the router."""
    allowed, refused = _forward_rules()
    return {key: value for key, value in headers.items() if key not in refused and (not allowed or key in allowed)}


@cache
def _forward_rules() -> tuple[set[str], set[str]]:
    """Return the names of allowed headers (empty: all) and of disallowed headers."""
    document: Any = read_document(CONFIGURATION.read_text("utf-8"))
    listener = document["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    filters = {each["name"]: each for each in manager["http_filters"]}
    rules = filters["envoy.filters.http.ext_proc"]["typed_config"].get("forward_rules", {})
    return _exact(rules.get("allowed_headers", {})), _exact(rules.get("disallowed_headers", {}))


def _exact(matcher: Mapping[str, Any]) -> set[str]:
    return {pattern["exact"] for pattern in matcher.get("patterns", ())}


def _headers(fields: Mapping[str, str]) -> HttpHeaders:
    headers = HttpHeaders()
    for key, value in _forwarded(fields).items():
        headers.headers.headers.add(key=key, raw_value=value.encode())
    return headers


def _bytes(message: ProcessingRequest) -> bytes:
    data: bytes = message.SerializeToString()
    return data
