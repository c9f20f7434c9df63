"""The log of a running router must not contain secrets."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from envoy.config.core.v3.base_pb2 import HeaderMap, HeaderValue

from extproc.telemetry.log import JsonFormatter

Router = Callable[..., Any]
CREDENTIALS = ("authorization", "cookie", "x-api-key", "x-tenant-secret")
CHAT = {"model": "m", "messages": [{"role": "user", "content": "SECRET question"}], "max_tokens": 5}
RESPONSE = {
    "choices": [{"finish_reason": "stop", "message": {"content": "SECRET response"}}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3},
}
TOO_LONG = {"error": {"message": "This model's maximum context length is 8 tokens. SECRET", "code": 400}}


async def exchanged(stream: Any, body: bytes, status: str = "", response: bytes = b"") -> None:
    """Send a request with credentials, and a response if `status` is given; read until the stream closes."""
    values = [HeaderValue(key=key, raw_value=b"Bearer SECRET") for key in CREDENTIALS]
    await stream.headers(headers=HeaderMap(headers=values))
    await stream.body(body)
    if status:
        await stream.read()
        await stream.response_headers(status)
        await stream.response_body(response)
    while await stream.read() is not None:
        pass


def test_no_body_and_no_credential_is_logged(
    router: Router, call: type[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """With every logger at level debug, no text of a request or response and no header value is logged."""
    whole, response, refusal = (json.dumps(message).encode() for message in (CHAT, RESPONSE, TOO_LONG))

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            await exchanged(call(channel), whole, "200", response)
            await exchanged(call(channel), whole, "200", response[:70])
            await exchanged(call(channel), whole, "200", b"SECRET" + response)
            await exchanged(call(channel), whole, "400", refusal)
            await exchanged(call(channel), whole[:70])
            await exchanged(call(channel), b'{"model": 1, "messages": "SECRET"}')

    caplog.set_level(logging.DEBUG)
    asyncio.run(scenario())
    lines = [JsonFormatter().format(record) for record in caplog.records]
    logged = {json.loads(line)["message"] for line in lines}
    assert {"decided", "observed", "response not learned from", "context overflow"} <= logged
    assert [] == [line for line in lines if "SECRET" in line or "Bearer" in line]


def test_a_logged_exception_shows_no_values(
    router: Router, call: type[Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A traceback shows our lines of code, but not the values in them."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            monkeypatch.setattr(app.router.placer.early, "is_enough", json.JSONDecoder().decode)
            stream = call(channel)
            await stream.headers()
            await stream.body(json.dumps(CHAT).encode())
            while await stream.read() is not None:
                pass

    caplog.set_level(logging.DEBUG)
    asyncio.run(scenario())
    (line,) = [JsonFormatter().format(record) for record in caplog.records if record.exc_info]
    assert "TypeError" in json.loads(line)["traceback"]
    assert "SECRET" not in line
