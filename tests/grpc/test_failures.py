"""No failure of this program may fail a request: what a stream does about an exception in our own code."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tests.grpc.served import App

Router = Callable[..., Any]
CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}).encode()


def failures(app: App) -> float:
    """Return how many of Broken's exceptions the metric has counted."""
    return app._streams.metrics.exceptions["KeyError",]


async def ended(stream: Any) -> grpc.StatusCode:
    """Return how a stream ends, whatever it replies before."""
    try:
        while await stream.read() is not None:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    code: grpc.StatusCode = await stream.code()
    return code


class Broken:
    """Stands in for a method and raises, but for the first calls."""

    def __init__(self, method: Any, *, works: int = 0) -> None:
        self._method = method
        self._works = works

    def __call__(self, argument: Any) -> Any:
        """Work, or fail."""
        self._works -= 1
        if self._works < 0:
            raise KeyError("a fault of ours")
        return self._method(argument)


@pytest.mark.parametrize("mode", ["STREAMED", "BUFFERED"])
@pytest.mark.parametrize("method", ["first", "next"])
def test_a_failure_to_decode_closes_the_stream_well(
    router: Router, call: type[Any], monkeypatch: pytest.MonkeyPatch, mode: str, method: str
) -> None:
    """Whichever message cannot be decoded for a fault of ours, the stream ends with OK and that is counted."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            decoder = app._streams.routing.decoder
            monkeypatch.setattr(decoder, method, Broken(getattr(decoder, method)))
            stream = call(channel)
            await stream.headers(mode=mode)
            if method == "next":  # the first message ends the stream: nothing may be written to it any more
                await stream.body(CHAT)
            assert grpc.StatusCode.OK == await ended(stream)
            assert 1 == failures(app)

    asyncio.run(scenario())


@pytest.mark.parametrize("mode", ["STREAMED", "BUFFERED"])
def test_a_failure_to_encode_closes_the_stream_well(
    router: Router, call: type[Any], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """A decision that cannot be written down lets the request go on undecided."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            encoder = app._streams.routing.encoder
            monkeypatch.setattr(encoder, "encode", Broken(encoder.encode, works=mode == "BUFFERED"))
            stream = call(channel)
            await stream.headers(mode=mode)
            await stream.body(CHAT)
            assert grpc.StatusCode.OK == await ended(stream)
            assert 1 == failures(app)

    asyncio.run(scenario())


def test_a_failure_at_the_deadline_closes_the_stream_well(
    router: Router, call: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the deadline's replies cannot be made, the held request goes on at once, not at the next message."""

    async def scenario() -> None:
        settings = "exchange: {deadline_ms: 20}"
        async with router(settings) as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            encoder = app._streams.routing.encoder
            monkeypatch.setattr(encoder, "encode", Broken(encoder.encode))
            stream = call(channel)
            await stream.headers()
            assert grpc.StatusCode.OK == await ended(stream)
            assert 1 == failures(app)

    asyncio.run(scenario())


@pytest.mark.parametrize("end", [False, True])
def test_a_failure_within_a_full_duplex_body_is_told(
    router: Router, call: type[Any], monkeypatch: pytest.MonkeyPatch, *, end: bool
) -> None:
    """A clean close would cut a full-duplex body unnoticed, at its end too: the stream ends with INTERNAL."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            encoder = app._streams.routing.encoder
            monkeypatch.setattr(encoder, "encode", Broken(encoder.encode, works=1))
            stream = call(channel)
            await stream.headers("/v1/other", mode="FULL_DUPLEX_STREAMED")
            await stream.body(b"a piece", end=end)
            assert grpc.StatusCode.INTERNAL == await ended(stream)
            assert 1 == failures(app)

    asyncio.run(scenario())


def test_a_failure_at_the_deadline_of_a_full_duplex_body_is_told(
    router: Router, call: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pieces that are held then cannot be given back: the stream ends with INTERNAL."""

    async def scenario() -> None:
        settings = "exchange: {deadline_ms: 20}"
        async with router(settings) as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            encoder = app._streams.routing.encoder
            monkeypatch.setattr(encoder, "encode", Broken(encoder.encode))
            stream = call(channel)
            await stream.headers(mode="FULL_DUPLEX_STREAMED")
            await stream.body(CHAT[:9], end=False)
            assert grpc.StatusCode.INTERNAL == await ended(stream)
            assert 1 == failures(app)

    asyncio.run(scenario())


def test_a_failure_after_a_full_duplex_body_closes_the_stream_well(
    router: Router, call: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the request went on whole and the response is not ours to give back, a close loses nothing."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            decoder = app._streams.routing.decoder
            monkeypatch.setattr(decoder, "next", Broken(decoder.next, works=1))
            stream = call(channel)
            await stream.headers(mode="FULL_DUPLEX_STREAMED")
            await stream.body(CHAT)
            assert (await stream.read()).HasField("request_headers")
            assert (await stream.read()).HasField("request_body")
            await stream.response_headers()
            assert grpc.StatusCode.OK == await ended(stream)
            assert 1 == failures(app)

    asyncio.run(scenario())
