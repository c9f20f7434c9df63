import asyncio
import gc
import logging
import time
from math import inf
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from extproc.config.loading import parse
from extproc.server.streams import _Stream
from tests.grpc.messages import Router, chat, mutation
from tests.grpc.served import App

USAGE = b'{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":4,"completion_tokens":3}}'


def test_a_released_stream_ends_with_ok_after_its_decision(router: Router, call: type[Any]) -> None:
    """A streaming request without usage gets one reply, which clears the route cache, and then status OK."""

    async def scenario() -> None:
        settings = "estimator: {kind: ema}\nlearning: {usage_in_streams: asked}"
        async with router(settings) as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream = call(channel)
            await stream.headers()
            await stream.body(chat(stream=True))
            decision = await stream.read()
            assert mutation(decision) == {
                "x-token-budget-pool": "short",
                "x-token-budget-estimate": "53",
                "x-token-budget-reason": "fits",
            }
            assert decision.request_headers.response.clear_route_cache
            assert json_format.MessageToDict(decision.dynamic_metadata)["dualpool"] == {
                "pool": "short",
                "reason": "fits",
                "mode": "enforce",
                "source": "prior",
                "estimate": 53.0,
                "prompt_tokens": 3.0,
            }
            assert await stream.read() is None
            assert grpc.StatusCode.OK == await stream.code()

    asyncio.run(scenario())


def test_a_response_is_learned_from(router: Router, call: type[Any]) -> None:
    """The usage on a kept stream is learned for the model's category, and the stream ends with OK."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream = call(channel)
            await stream.headers(mode="BUFFERED")
            assert (await stream.read()).HasField("request_headers")
            await stream.body(chat())
            assert (await stream.read()).request_body.response.clear_route_cache
            await stream.response_headers()
            assert (await stream.read()).HasField("response_headers")
            await stream.response_body(USAGE)
            assert await stream.read() is None
            assert grpc.StatusCode.OK == await stream.code()
            await app.calls_over()
            learned = {
                row.category.model: row.observations for row in app.router.placer.estimator.state().categories
            }
            assert learned["m"] == 1

    asyncio.run(scenario())


def test_the_deadline_ends_the_wait_for_a_slow_body(router: Router, call: type[Any]) -> None:
    """If the body does not arrive, the headers are replied to at the deadline, and the stream is closed."""

    async def scenario() -> None:
        settings = "exchange: {deadline_ms: 20}"
        async with router(settings) as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream = call(channel)
            await stream.headers()
            await stream.body(b'{"model', end=False)
            reply = await stream.read()
            assert mutation(reply) == {"x-token-budget-reason": "deadline"}
            assert await stream.read() is None
            assert grpc.StatusCode.OK == await stream.code()

    asyncio.run(scenario())


def test_headers_of_a_response_are_replied_to_at_the_deadline(router: Router, call: type[Any]) -> None:
    """If a JSON response's body does not follow, its headers are replied to, and the response still teaches."""

    async def scenario() -> None:
        settings = "exchange: {deadline_ms: 20}"
        async with router(settings) as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream = call(channel)
            await stream.headers()
            await stream.body(chat())
            assert (await stream.read()).HasField("request_headers")
            assert (await stream.read()).HasField("request_body")
            await stream.response_headers()
            assert (await stream.read()).HasField("response_headers")
            await stream.response_body(USAGE)
            assert await stream.read() is None
            assert grpc.StatusCode.OK == await stream.code()
            await app.calls_over()
            assert 1 == app.ask(lambda: app.router.placer.estimator.state().models[0].observations)

    asyncio.run(scenario())


def test_headers_of_a_response_have_a_deadline_of_their_own(
    router: Router, call: type[Any], eventually: Any
) -> None:
    """However long ago the request came, they wait as long for their body as a request does."""

    def forget(app: App) -> None:
        app._streams.routing.deadlines._queue.clear()
        (stream,) = app._streams.open
        stream._began_s = 0.0

    async def scenario() -> None:
        settings = "exchange: {deadline_ms: 60000}"
        async with router(settings) as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream, before_s = call(channel), time.monotonic()
            await stream.headers()
            await stream.body(chat())
            assert (await stream.read()).HasField("request_headers")
            assert (await stream.read()).HasField("request_body")
            app.ask(lambda: forget(app))
            await stream.response_headers()
            await eventually(lambda: before_s + 60 <= app._streams.routing.deadlines.next_s < inf)
            await stream.response_body(USAGE)
            assert await stream.read() is None

    asyncio.run(scenario())


def test_an_ended_stream_is_freed_at_once(router: Router, call: type[Any], eventually: Any) -> None:
    """No part of it is left to the garbage collector, whose runs would delay other requests."""

    def streams() -> list[_Stream]:
        return [each for each in gc.get_objects() if type(each) is _Stream]

    async def scenario() -> None:
        settings = "learning: {usage_in_streams: asked}"
        of_other_tests = streams()  # of a router that was not given the time to end its calls, say
        async with router(settings) as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream = call(channel)
            await stream.headers()
            await stream.body(chat(stream=True))
            await stream.read()
            await eventually(lambda: not app._core._calls)
            # The deadline of a decided stream is dropped when the next stream begins, or when it expires.
            app._streams.routing.deadlines._queue.clear()
            assert [] == [each for each in streams() if each not in of_other_tests]

    gc.collect()
    gc.disable()
    try:
        asyncio.run(scenario())
    finally:
        gc.enable()


@pytest.mark.parametrize("steps", range(4))
def test_a_gateway_that_leaves_at_any_point_leaves_nothing(
    router: Router, call: type[Any], eventually: Any, caplog: pytest.LogCaptureFixture, steps: int
) -> None:
    """Cancelling after any message ends the stream on our side, without an error."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            open_streams = app._streams.open
            stream = call(channel)
            sends = [
                stream.headers,
                lambda: stream.body(chat()),
                stream.response_headers,
                lambda: stream.response_body(USAGE[:9], end=False),
            ]
            for send in sends[: steps + 1]:
                await send()
            await eventually(lambda: len(open_streams) == 1)
            stream.stub.cancel()
            await eventually(lambda: not open_streams)

    asyncio.run(scenario())
    assert [] == [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_gateways_that_leave_around_the_deadline_leave_nothing(
    router: Router, call: type[Any], eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Cancelling just before, during or after the replies at the deadline is not an error, either."""

    async def scenario() -> None:
        settings = "exchange: {deadline_ms: 5}"
        async with router(settings) as app, grpc.aio.insecure_channel(app.grpc_address) as channel:

            async def leave(after_s: float) -> None:
                stream = call(channel)
                await stream.headers()
                await asyncio.sleep(after_s)
                stream.stub.cancel()

            await asyncio.gather(*(leave(step / 5000) for step in range(60)))
            await eventually(lambda: not app._streams.open)

    asyncio.run(scenario(), debug=True)
    gc.collect()
    assert [] == [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("message", [b"\xff\xff\xff", b"", b"\x00" * 1000])
def test_an_invalid_message_ends_the_stream_with_ok(router: Router, message: bytes) -> None:
    """Bytes that are not a ProcessingRequest end the stream with OK: the gateway continues without us."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            raw: Any = channel.stream_stream  # the stubs require serializers
            stream = raw("/envoy.service.ext_proc.v3.ExternalProcessor/Process")()
            await stream.write(message)
            assert grpc.StatusCode.OK == await asyncio.wait_for(stream.code(), 10)

    asyncio.run(scenario())


def test_a_body_far_beyond_grpcs_own_limit_is_accepted(router: Router, call: type[Any]) -> None:
    """A BUFFERED body of 20 MB arrives in one message and is replied to."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream = call(channel)
            await stream.headers(mode="BUFFERED")
            await stream.read()
            await stream.body(b'{"messages":"' + b"a" * 20_000_000)
            mutated = (await stream.read()).request_body.response.header_mutation
            assert "early" == mutated.set_headers[0].header.raw_value.decode()

    asyncio.run(scenario())


def test_a_body_over_the_limit_is_refused_and_ends_no_other_stream(call: type[Any]) -> None:
    """A message over listen.max_message_bytes ends its own stream with RESOURCE_EXHAUSTED, and no other."""
    listen = "{address: '127.0.0.1:0', max_message_bytes: 1048576}"

    async def scenario() -> None:
        app = App(parse(f"listen: {listen}\nadmin: {{address: '127.0.0.1:0'}}\ndrain_s: 0"))
        await app.start()
        async with grpc.aio.insecure_channel(app.grpc_address) as channel:
            streams = [call(channel) for _ in range(2)]
            for stream in streams:
                await stream.headers(mode="BUFFERED")
                assert (await stream.read()).HasField("request_headers")
            await streams[0].body(b"a" * (3 << 20))
            assert grpc.StatusCode.RESOURCE_EXHAUSTED == await streams[0].code()
            await streams[1].body(chat())
            assert (await streams[1].read()).HasField("request_body")
        await app.stop()

    asyncio.run(scenario())


def test_only_ext_proc_and_health_are_served(router: Router) -> None:
    """Server reflection is off."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            for version in ("v1", "v1alpha"):
                raw: Any = channel.stream_stream  # the stubs require serializers
                stream = raw(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")()
                assert grpc.StatusCode.UNIMPLEMENTED == await asyncio.wait_for(stream.code(), 10)

    asyncio.run(scenario())


def test_a_handler_that_raises_ends_no_other_call(
    router: Router, call: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception outside an exchange ends its own call with an error; the next request is served."""

    def broken(_stream: Any) -> None:
        raise KeyError("a fault of ours")

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            with monkeypatch.context() as patched:
                patched.setattr(app._streams, "serve", broken)
                lost = call(channel)
                assert grpc.StatusCode.OK != await lost.code()
            stream = call(channel)
            await stream.headers()
            await stream.body(chat(stream=True))
            assert mutation(await stream.read())["x-token-budget-reason"] == "fits"

    asyncio.run(scenario())
