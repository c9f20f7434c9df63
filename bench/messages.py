"""The messages of one exchange as Envoy sends them in STREAMED mode, to measure servers without Envoy."""

import json
import struct

from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from envoy.service.ext_proc.v3.external_processor_pb2 import HttpBody, HttpHeaders, ProcessingRequest

from extproc.core.budget import TokenBudget
from extproc.core.decision import Decision, Mode, Reason
from extproc.core.events import ContinueHeaders, Phase
from extproc.core.facts import Api
from extproc.core.policy import Pool
from extproc.wire.encode import Encoder, HeaderNames

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
TEXT = "The router reads the request body that the gateway streams to it and decides by its token budget. "

# What Envoy adds and what the openai client sends: 18 headers, as in a real request.
REQUEST_HEADERS = {
    ":authority": "gateway.example",
    ":path": "/v1/chat/completions",
    ":method": "POST",
    ":scheme": "http",
    "accept": "application/json",
    "accept-encoding": "gzip, deflate",
    "authorization": "Bearer none",
    "content-type": "application/json",
    "user-agent": "AsyncOpenAI/Python 2.0.0",
    "x-stainless-arch": "x64",
    "x-stainless-async": "async:asyncio",
    "x-stainless-lang": "python",
    "x-stainless-os": "Linux",
    "x-stainless-package-version": "2.0.0",
    "x-stainless-runtime": "CPython",
    "x-stainless-runtime-version": "3.11.7",
    "x-forwarded-proto": "http",
    "x-request-id": "6b1c2b86-7d2f-4f5e-9d3a-0a7f0b7ad2c1",
}


def chat_body(body_bytes: int, *, learnable: bool) -> bytes:
    """Return a chat request of about so many bytes of English; a stream without usage teaches nothing."""
    text = (TEXT * (body_bytes // len(TEXT) + 1))[: max(body_bytes - 150, 10)]
    body = {"model": "bench", "messages": [{"role": "user", "content": text}], "max_tokens": 256}
    return json.dumps(body if learnable else {**body, "stream": True}).encode()


def chat_answer(body_bytes: int = 1024) -> bytes:
    """Return a JSON answer of about so many bytes, with usage."""
    message = {"role": "assistant", "content": (TEXT * 50)[: body_bytes - 330]}
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


def released(body: bytes) -> bytes:
    """Return the gRPC frames of a request that teaches nothing: headers and one piece of body."""
    return _frame(_headers(REQUEST_HEADERS, first=True)) + _frame(
        ProcessingRequest(request_body=HttpBody(body=body, end_of_stream=True))
    )


def learned(body: bytes, answer: bytes) -> bytes:
    """Return the frames of a request and its JSON answer."""
    status = _headers({":status": "200", "content-type": "application/json", "server": "uvicorn"}, first=False)
    piece = ProcessingRequest(response_body=HttpBody(body=answer, end_of_stream=True))
    return released(body) + _frame(status) + _frame(piece)


def decision_answer() -> bytes:
    """Return what a router answers to a short request."""
    decision = Decision(
        Pool("short", 8192), Reason.FITS, Mode.ENFORCE, routed=True, api=Api.CHAT, budget=TokenBudget(9, 9, 9, 1)
    )
    return Encoder(HeaderNames()).encode(ContinueHeaders(Phase.REQUEST, decision))


def _headers(fields: dict[str, str], *, first: bool) -> ProcessingRequest:
    headers = HttpHeaders()
    for key, value in fields.items():
        headers.headers.headers.add(key=key, raw_value=value.encode())
    if not first:
        return ProcessingRequest(response_headers=headers)
    message = ProcessingRequest(request_headers=headers)
    message.protocol_config.request_body_mode = ProcessingMode.STREAMED
    message.protocol_config.response_body_mode = ProcessingMode.STREAMED
    message.protocol_config.send_body_without_waiting_for_header_response = True
    return message


def _frame(message: ProcessingRequest) -> bytes:
    data: bytes = message.SerializeToString()
    return struct.pack(">BI", 0, len(data)) + data
