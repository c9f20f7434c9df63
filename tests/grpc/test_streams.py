import asyncio
import gc
import json
import logging
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extproc.config.loading import parse
from extproc.server.streams import _Stream
from tests.grpc.served import App

Router = Callable[..., Any]


def chat(**fields: Any) -> bytes:
    """Return a chat request's body."""
    return json.dumps(
        {"model": "m", "messages": [{"role": "user", "content": "How are you?"}], "max_tokens": 50, **fields}
    ).encode()


USAGE = b'{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":4,"completion_tokens":3}}'


def mutation(message: Any) -> dict[str, str]:
    """Return the headers that a reply sets."""
    common = message.request_headers.response
    return {option.header.key: option.header.raw_value.decode() for option in common.header_mutation.set_headers}


def echo(message: Any) -> bytes:
    """Return the chunk of the request body that a reply echoes."""
    piece: bytes = message.request_body.response.body_mutation.streamed_response.body
    return piece


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


def test_an_ended_stream_is_freed_at_once(router: Router, call: type[Any], eventually: Any) -> None:
    """No part of it is left to the garbage collector, whose runs would delay other requests."""

    async def scenario() -> None:
        settings = "learning: {usage_in_streams: asked}"
        async with router(settings) as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream = call(channel)
            await stream.headers()
            await stream.body(chat(stream=True))
            await stream.read()
            await eventually(lambda: not app._core._calls)
            # The deadline of a decided stream is dropped when the next stream begins, or when it expires.
            app._streams.routing.deadlines._queue.clear()
            assert [] == [each for each in gc.get_objects() if type(each) is _Stream]

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


def test_a_stop_returns_cleanly_from_waiting_streams(router: Router, call: type[Any]) -> None:
    """A stream kept for its response ends with OK when the router stops: the response continues without us."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream = call(channel)
            await stream.headers()
            await stream.body(chat())
            await stream.response_headers()
            replied_to = [(await stream.read()).WhichOneof("response") for _ in range(3)]
            assert replied_to == ["request_headers", "request_body", "response_headers"]
            await app.stop()
            assert grpc.StatusCode.OK == await stream.code()

    asyncio.run(scenario())


def test_a_stop_waits_for_a_full_duplex_body(router: Router, call: type[Any]) -> None:
    """In full duplex mode a stopping router echoes the body to its end before it closes: no byte is lost."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream = call(channel)
            await stream.headers("/v1/other", mode="FULL_DUPLEX_STREAMED")
            await stream.read()
            stopping = asyncio.ensure_future(app.stop())
            await stream.body(b"first", end=False)
            assert b"first" == echo(await stream.read())
            await stream.body(b"last")
            assert b"last" == echo(await stream.read())
            assert grpc.StatusCode.OK == await stream.code()
            await stopping

    asyncio.run(scenario())


def test_a_stop_while_a_full_duplex_body_goes_back_cuts_nothing(
    router: Router, call: type[Any], eventually: Any
) -> None:
    """Chunks of the last message that are not yet written are written before the stream ends."""
    body = b'{"pad":"' + b"a" * 8_000_000 + b'",' + chat()[1:]

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream = call(channel)
            await stream.headers("/v1/other", mode="FULL_DUPLEX_STREAMED")
            await stream.read()
            (served,) = app._streams.open
            await stream.body(body[:5], end=False)
            assert body[:5] == echo(await stream.read())
            await stream.body(body[5:])
            # The gateway reads nothing, so the router is in the middle of its writes.
            await eventually(lambda: not served._exchange._duplex.under_way)
            stopping = asyncio.ensure_future(app.stop())
            await eventually(lambda: app._streams.draining)
            back = body[:5]
            while (reply := await stream.read()) is not None:
                back += echo(reply)
            assert body == back
            assert grpc.StatusCode.OK == await stream.code()
            await stopping

    asyncio.run(scenario())


def test_a_stop_does_not_wait_for_the_response_to_a_full_duplex_body(
    router: Router, call: type[Any], eventually: Any
) -> None:
    """A stream kept for its response ends with OK as soon as the whole body has been echoed."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream = call(channel)
            await stream.headers(mode="FULL_DUPLEX_STREAMED")
            await stream.body(chat()[:9], end=False)
            await eventually(lambda: len(app._streams.open) == 1)
            stopping = asyncio.ensure_future(app.stop())
            await stream.body(chat()[9:])
            assert mutation(await stream.read())["x-token-budget-reason"] == "fits"
            assert [chat()[:9], chat()[9:]] == [echo(await stream.read()) for _ in range(2)]
            assert await stream.read() is None
            assert grpc.StatusCode.OK == await stream.code()
            await stopping

    asyncio.run(scenario())


def test_health_responds_by_every_name_and_turns_at_a_drain(router: Router) -> None:
    """All names are SERVING; while draining, all but liveness are NOT_SERVING."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)

            async def status(name: str) -> int:
                response = await stub.Check(health_pb2.HealthCheckRequest(service=name))
                return int(response.status)

            names = ["", "liveness", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor"]
            assert [1, 1, 1, 1] == [await status(name) for name in names]
            app.ask(lambda: app._health.set_ready(ready=False))
            assert [2, 1, 2, 2] == [await status(name) for name in names]

    asyncio.run(scenario())


def test_a_health_watch_reports_each_change_and_ends_at_a_stop(router: Router) -> None:
    """A watch reports the current status at once, then each change, and ends with OK when the router stops."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            ready, unknown = (stub.Watch(health_pb2.HealthCheckRequest(service=name)) for name in ("", "nobody"))
            assert [1, 3] == [(await asyncio.wait_for(watch.read(), 10)).status for watch in (ready, unknown)]
            app.ask(lambda: app._health.set_ready(ready=False))
            assert 2 == (await asyncio.wait_for(ready.read(), 10)).status
            await app.stop()
            assert [grpc.StatusCode.OK] * 2 == [await watch.code() for watch in (ready, unknown)]

    asyncio.run(scenario())


def test_a_watcher_that_leaves_is_forgotten(router: Router, eventually: Any) -> None:
    """A cancelled watch leaves nothing behind."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            await asyncio.wait_for(watch.read(), 10)
            assert 1 == len(app._health._watchers)
            watch.cancel()
            await eventually(lambda: not app._health._watchers and not app._core._calls)

    asyncio.run(scenario())


def test_health_of_an_unknown_service_and_of_an_invalid_request(router: Router) -> None:
    """Check answers NOT_FOUND for an unknown name, and INVALID_ARGUMENT for bytes that are not a request."""

    async def code(channel: grpc.aio.Channel, message: bytes) -> grpc.StatusCode:
        raw: Any = channel.unary_unary  # the stubs require serializers
        try:
            await raw("/grpc.health.v1.Health/Check")(message)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            assert grpc.StatusCode.NOT_FOUND == await code(channel, b"\x0a\x01x")
            assert grpc.StatusCode.INVALID_ARGUMENT == await code(channel, b"\xff")

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
